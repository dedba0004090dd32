"""Cancellations that nobody asked for.

Some libraries let the cancellation of a task of their own escape: aiokafka's consumer does when it is stopped while a fetch
has just failed. asyncio takes that for an end that was wished for. A task group lets its task go without a word, and
`except Exception` does not see it; so what should have gone on, or been tried again, would be over, silently.
"""

import asyncio
from collections.abc import Awaitable, Callable


class BrokenOff(Exception):
    """What was awaited was cancelled, and not by whoever may cancel this task."""


async def unbroken[T, **P](work: Callable[P, Awaitable[T]], *args: P.args, **kwargs: P.kwargs) -> T:
    """Call it, and await what it gives. (Not given the awaitable: a task that is cancelled before it begins would leave it so.)

    Raises:
        BrokenOff: it ended by a cancellation, and nobody had asked this task to end.
    """
    try:
        return await work(*args, **kwargs)
    except asyncio.CancelledError as error:
        task = asyncio.current_task()
        if task is None or task.cancelling():
            raise
        raise BrokenOff from error
