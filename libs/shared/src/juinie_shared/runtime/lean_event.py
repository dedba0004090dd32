"""An `asyncio.Event` for what there are very many of: asyncio's own has a deque each, which is 760 bytes though nobody waits."""

import asyncio
from typing import override


class LeanEvent(asyncio.Event):
    """As its base, for few who wait. It may be set from the beginning."""

    # Without the base's `__init__`, which makes the deque.

    @override
    def __init__(self, is_set: bool = False) -> None:
        self._waiters = []  # pyright: ignore[reportAttributeAccessIssue] - used as one
        self._value = is_set
