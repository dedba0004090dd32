"""Cancellations that nobody asked for.

Some libraries let the cancellation of a task of their own escape: aiokafka's consumer does when it is stopped while a fetch
has just failed. asyncio takes that for an end that was wished for. A task group lets its task go without a word, and
`except Exception` does not see it; so what should have gone on, or been tried again, would be over, silently.
"""

import asyncio
from collections.abc import Awaitable


class BrokenOff(Exception):
    """What was awaited was cancelled, and not by whoever may cancel this task."""


async def unbroken[T](work: Awaitable[T]) -> T:
    """Await it.

    Raises:
        BrokenOff: it ended by a cancellation, and nobody had asked this task to end.
    """
    try:
        return await work
    except asyncio.CancelledError as error:
        task = asyncio.current_task()
        if task is None or task.cancelling():
            raise
        raise BrokenOff from error
