"""A few in each turn of the event loop: a crowd that leaves at once, or what is done for all, does not stand before those who are served."""

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, Callable, Iterable


class Pace:
    """`at_once` may be done in one turn. What comes besides waits for the next ones, in order."""

    def __init__(self, at_once: int) -> None:
        self._at_once = self._left = at_once
        self._waiting: deque[Callable[[], None]] = deque()
        self._is_turning = False

    def do(self, act: Callable[[], None]) -> None:
        """Now, or in its turn."""
        if self._waiting or not self._left:
            self._waiting.append(act)
            return
        self._left -= 1
        if not self._is_turning:
            self._is_turning = True
            asyncio.get_running_loop().call_soon(self._turn)
        act()

    def _turn(self) -> None:
        if self._left == self._at_once:
            self._is_turning = False
            return
        self._left = self._at_once
        asyncio.get_running_loop().call_soon(self._turn)
        while self._waiting and self._left:
            self._left -= 1
            self._waiting.popleft()()


async def a_few_a_turn[T](items: Iterable[T], at_once: int) -> AsyncGenerator[T]:
    """Each of them, so many in one turn."""
    for number, item in enumerate(items, 1):
        yield item
        if number % at_once == 0:
            await asyncio.sleep(0)
