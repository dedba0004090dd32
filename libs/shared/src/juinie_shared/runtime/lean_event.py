"""An `asyncio.Event` for what there are very many of: asyncio's own has a deque each, which is 760 bytes though nobody waits."""

import asyncio
from typing import override


class LeanEvent(asyncio.Event):
    """As its base, for few who wait."""

    # Without the base's `__init__`, which makes the deque.

    @override
    def __init__(self) -> None:
        self._waiters = []  # pyright: ignore[reportAttributeAccessIssue] - used as one
        self._value = False
