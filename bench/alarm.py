"""To be woken at a moment, to the tenth of a millisecond: the timers of an event loop know milliseconds only, and come up to one too late."""

import asyncio
import os
import time
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager

_COARSE_SECONDS = 0.001


@asynccontextmanager
async def alarm() -> AsyncGenerator[Callable[[float], Awaitable[None]]]:
    """What waits until a moment of `time.perf_counter()`, for one who waits at a time."""
    if not hasattr(os, "timerfd_create"):
        yield _sleep_until
        return
    loop = asyncio.get_running_loop()
    timer = os.timerfd_create(time.CLOCK_MONOTONIC, flags=os.TFD_NONBLOCK | os.TFD_CLOEXEC)
    rings = asyncio.Event()
    loop.add_reader(timer, rings.set)

    async def until(moment: float) -> None:
        while (left := moment - time.perf_counter()) > 0:
            os.timerfd_settime(timer, initial=left)
            await rings.wait()
            rings.clear()
            os.read(timer, 8)

    try:
        yield until
    finally:
        loop.remove_reader(timer)
        os.close(timer)


async def _sleep_until(moment: float) -> None:
    while (left := moment - time.perf_counter()) > 0:
        await asyncio.sleep(max(_COARSE_SECONDS, left))
