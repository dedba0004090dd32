"""How late the event loop of a service is: what holds it up holds up every request, stream and lease of the process."""

import asyncio
from collections.abc import Callable

LOOK_EVERY_SECONDS = 0.25
BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0)


async def watch_loop_lag(observe: Callable[[float], None]) -> None:
    """Tell, four times a second and until cancelled, by how many seconds too late the loop ran a timer."""
    loop = asyncio.get_running_loop()
    while True:
        due = loop.time() + LOOK_EVERY_SECONDS
        await asyncio.sleep(LOOK_EVERY_SECONDS)
        observe(max(0.0, loop.time() - due))
