"""Starts a client of Kafka within a time, and leaves nothing open where that fails.

aiokafka loses the connection that it is just making when its start is cancelled: nobody can close it any more. So a
start is never cancelled. It ends by itself, at its own request timeouts, behind our back; what it opened is closed then.
"""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Protocol


class Client(Protocol):
    async def start(self) -> None: ...


class Background:
    """What ends behind our back. `wait` gives it a moment before the process does."""

    def __init__(self) -> None:
        self._tasks = set[asyncio.Task[None]]()

    def add(self, ending: Awaitable[None]) -> None:
        task = asyncio.ensure_future(ending)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def wait(self, seconds: float) -> None:
        """Wait for all of it, at most so long; then cut it."""
        if not self._tasks:
            return
        _, left = await asyncio.wait(self._tasks, timeout=seconds)
        for task in left:
            task.cancel()


async def start_within(
    client: Client, stop: Callable[[], Awaitable[None]], seconds: float, background: Background
) -> None:
    """Start a client. Where that fails or takes longer, it is stopped as soon as its start has ended.

    Raises:
        TimeoutError: it took longer. Otherwise what the start raises.
    """
    starting = asyncio.create_task(client.start())
    try:
        async with asyncio.timeout(seconds):
            await asyncio.shield(starting)
    except BaseException:
        background.add(_stop_after(starting, stop))
        raise


async def _stop_after(starting: asyncio.Task[None], stop: Callable[[], Awaitable[None]]) -> None:
    await asyncio.wait({starting})
    if not starting.cancelled():
        starting.exception()  # was told already
    await stop()
