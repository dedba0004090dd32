"""What happens in one turn of the event loop."""

import asyncio
from collections.abc import Callable, Generator
from contextlib import contextmanager


@contextmanager
def turns() -> Generator[Callable[[], int]]:
    """What to call for the number of the loop's turn, which goes on as fast as it can meanwhile."""
    loop, number, counting = asyncio.get_running_loop(), 0, True

    def count() -> None:
        nonlocal number
        number += 1
        if counting:
            loop.call_soon(count)

    count()
    try:
        yield lambda: number
    finally:
        counting = False
