"""When the event loop of this process stood still: whoever measures others on a busy machine has to know it of itself."""

import asyncio
import time
from collections import deque
from collections.abc import Generator
from contextlib import contextmanager

_LOOK_EVERY_SECONDS = 0.05
_STALL_SECONDS = 0.1
"""What is shorter is no stall, but how timers are."""
_KEPT = 1000


class Stalls:
    """Looks while anybody is inside `watched()`."""

    def __init__(self) -> None:
        self._stalls = deque[tuple[float, float]](maxlen=_KEPT)
        self._inside = 0
        self._looking = False

    @contextmanager
    def watched(self) -> Generator[None]:
        self._inside += 1
        if not self._looking:
            self._looking = True
            self._look_again()
        try:
            yield
        finally:
            self._inside -= 1

    def seconds_since(self, began: float) -> float:
        """For how long the loop has stood still since then, of `time.monotonic()`."""
        return sum(ended - max(since, began) for since, ended in self._stalls if ended > began)

    def _look_again(self) -> None:
        # Not a task: after a stall, a timer's callback runs before any task that goes on because of what came meanwhile.
        asyncio.get_running_loop().call_later(
            _LOOK_EVERY_SECONDS, self._look, time.monotonic() + _LOOK_EVERY_SECONDS
        )

    def _look(self, due: float) -> None:
        now = time.monotonic()
        if now - due > _STALL_SECONDS:
            self._stalls.append((due, now))
        self._looking = self._inside > 0
        if self._looking:
            self._look_again()
