"""How a loop waits between two rounds: until its time is up, or the process is asked to stop."""

import asyncio
from contextlib import suppress


async def pause(stopping: asyncio.Event, seconds: float) -> None:
    """Wait so long; less when `stopping` is set."""
    with suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            await stopping.wait()
