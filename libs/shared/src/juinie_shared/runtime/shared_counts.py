"""Counts by name, of this process and of all the others: limits hold over replicas, and no request waits for it.

Once a second, one statement writes what this process has counted and reads what the others have. While Postgres is
away each process goes on with what it knows: a limit then lets through too much, never too little.
"""

import asyncio
import time
from collections import Counter
from collections.abc import Callable, Iterable
from contextlib import suppress
from uuid import UUID

from juinie_shared.db import counts as table
from juinie_shared.db.pool import Pool
from juinie_shared.domain.errors import Transient
from juinie_shared.domain.ids import new_uuid7
from juinie_shared.runtime.tries import Tries

EXCHANGE_SECONDS = 1.0
SWEEP_SECONDS = 30.0
LEAVE_SECONDS = 0.5


class SharedCounts:
    """`run()` it in a task. `now` is the time that all processes agree on: the database's, once it was asked."""

    def __init__(self, pool: Pool, every_seconds: float = EXCHANGE_SECONDS) -> None:
        self._pool = pool
        self._every_seconds = every_seconds
        self._process_id: UUID = new_uuid7()
        self._own: Counter[str] = Counter()
        self._others: dict[str, int] = {}
        self._written: set[str] = set()
        self._failing = False
        self._ahead_of_monotonic = time.time() - time.monotonic()

    def now(self) -> float:
        """Seconds since 1970. A clock that is set on this machine moves nothing."""
        return time.monotonic() + self._ahead_of_monotonic

    def add(self, name: str, amount: int = 1) -> int:
        """Count, or with a negative amount give back, never more than was counted. Gives the new total."""
        self._own[name] = max(0, self._own[name] + amount)
        if not self._own[name] and name not in self._written:
            del self._own[name]
        return self.total(name)

    def total(self, name: str) -> int:
        """What all processes together have: the others' part as of the last exchange."""
        return self._own[name] + self._others.get(name, 0)

    def forget(self, names: Iterable[str]) -> None:
        """These are counted no more, here or elsewhere."""
        for name in names:
            self._own.pop(name, None)
            self._others.pop(name, None)
            self._written.discard(name)

    def names(self) -> list[str]:
        return list(self._own)

    async def run(self, report: Callable[[Transient | None], None] = lambda _error: None) -> None:
        """Exchange for ever. `report` hears of the first failure in a row, and of the first success after it."""
        swept_at, tries = time.monotonic(), Tries(report)
        while True:
            await asyncio.sleep(self._every_seconds)
            with tries:
                await self.exchange()
                if time.monotonic() - swept_at > SWEEP_SECONDS:
                    await self._sweep()
                    swept_at = time.monotonic()
            self._failing = tries.failing

    async def exchange(self) -> None:
        """Write and read, once. Nothing to count is nothing to ask.

        Raises:
            Transient: the database cannot be asked; what was known of the others stays.
        """
        mine = dict(self._own)
        if not mine:
            return
        self._written.update(mine)
        async with self._pool.connection() as connection:
            asked = time.monotonic()
            self._others, now = await table.exchange(connection, self._process_id, mine)
        self._set_clock(now, asked, time.monotonic())
        for name, amount in mine.items():
            if not amount and not self._own[name]:  # told to the others as 0: done with
                self.forget([name])

    def _set_clock(self, now: float, asked: float, answered: float) -> None:
        """The database said `now` at some moment between the two. What fits that is kept, so that time never jitters."""
        self._ahead_of_monotonic = min(max(self._ahead_of_monotonic, now - answered), now - asked)

    async def leave(self) -> None:
        """Give back all: this process stops. Where Postgres is away, its rows run out by themselves."""
        if self._failing or not self._written:
            return
        with suppress(Transient, TimeoutError):
            async with asyncio.timeout(LEAVE_SECONDS), self._pool.connection() as connection:
                await table.leave(connection, self._process_id)

    async def _sweep(self) -> None:
        async with self._pool.connection() as connection:
            await table.sweep(connection)
