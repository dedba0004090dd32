"""The bell that wakes the relay: rung by a notification from Postgres, and when the process is asked to stop."""

import asyncio
from contextlib import suppress


class Doorbell:
    """Rings since the last wait are one ring, and none is lost."""

    def __init__(self) -> None:
        self._rung = asyncio.Event()

    def ring(self) -> None:
        self._rung.set()

    async def wait(self, seconds: float) -> None:
        """Wait for a ring, at most so long."""
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._rung.wait()
        self._rung.clear()
