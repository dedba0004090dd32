"""Waits of one length, for very many who wait: one timer for all of them. `asyncio.timeout` makes a timer and three objects for each."""

import asyncio
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass


@dataclass(slots=True)
class _Waiting:
    """One who waits until `until`, on the loop's clock. `answer` is None once it does no more: nothing keeps what it was given."""

    until: float
    answer: asyncio.Future[object] | None


class Deadlines:
    """Who waits for longer than `seconds` is told `late`."""

    def __init__(self, seconds: float, late: Callable[[], Exception] = TimeoutError) -> None:
        self._seconds, self._late = seconds, late
        self._waiting: deque[_Waiting] = deque()
        """In the order of their deadlines. Those who wait no more leave it from the front."""
        self._timer: asyncio.TimerHandle | None = None

    async def wait[T](self, answer: asyncio.Future[T]) -> T:
        """What the future brings, which is for this one alone.

        Raises:
            Exception: `late`, or what the future brings.
        """
        loop = asyncio.get_running_loop()
        waiting = _Waiting(loop.time() + self._seconds, answer)  # pyright: ignore[reportArgumentType] - only exceptions are set
        self._waiting.append(waiting)
        if self._timer is None:
            self._timer = loop.call_later(self._seconds, self._look)
        try:
            return await answer
        finally:
            waiting.answer = None
            while self._waiting and self._waiting[0].answer is None:
                self._waiting.popleft()

    def _look(self) -> None:
        """Tell those whose time is over, and come again for the next."""
        loop = asyncio.get_running_loop()
        while self._waiting and self._waiting[0].until <= loop.time():
            answer = self._waiting.popleft().answer
            if answer is not None and not answer.done():
                answer.set_exception(self._late())
                answer.exception()  # seen: perhaps it is broken off in this very turn
        self._timer = loop.call_at(self._waiting[0].until, self._look) if self._waiting else None
