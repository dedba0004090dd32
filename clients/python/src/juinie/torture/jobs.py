"""A run that waits for workers, or is with one: what those who made it and those who work on it share."""

import asyncio
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass, field


@dataclass
class Job:
    """How many appends a worker makes who does not die before, and how many workers are at it: more than one, where one overslept."""

    appends: int
    _at_work: int = 0
    _quiet: asyncio.Event = field(default_factory=asyncio.Event)

    def __post_init__(self) -> None:
        self._quiet.set()

    @contextmanager
    def worked_on(self) -> Generator[None]:
        """While somebody works on it, nothing is concluded."""
        self._at_work += 1
        self._quiet.clear()
        try:
            yield
        finally:
            self._at_work -= 1
            if not self._at_work:
                self._quiet.set()

    async def until_quiet(self) -> None:
        """Until nobody works on it."""
        await self._quiet.wait()
