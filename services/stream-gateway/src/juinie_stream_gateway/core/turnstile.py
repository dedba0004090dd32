"""Who comes is let in a few at a time: ten thousand at once would hold up those who are there already, for seconds."""

import asyncio
from collections import deque

from juinie_shared.domain.errors import DatabaseBusy
from juinie_shared.runtime.deadlines import Deadlines


class Turnstile:
    """`at_once` may be inside. The others wait, in order, but for who gives up; each for `seconds` at most."""

    def __init__(self, at_once: int, seconds: float) -> None:
        self._free = at_once
        self._waiting: deque[asyncio.Future[None]] = deque()
        self._patience = Deadlines(seconds, late=DatabaseBusy)

    async def enter(self) -> None:
        """Wait for a turn; who had one calls `leave`.

        Raises:
            DatabaseBusy: it took too long.
        """
        if self._free:
            self._free -= 1
            return
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append(turn)
        try:
            await self._patience.wait(turn)
        except asyncio.CancelledError:
            if (
                turn.done() and not turn.cancelled() and turn.exception() is None
            ):  # it was this one's turn just now
                self.leave()
            raise

    def leave(self) -> None:
        """Somebody else may enter."""
        while self._waiting:
            turn = self._waiting.popleft()
            if not turn.done():
                turn.set_result(None)
                return
        self._free += 1
