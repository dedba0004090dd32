"""Wakes requests that wait for a run: one query for all of them.

A notification only says that something was committed; the runs' rows say what. Behind lost notifications stands a
poll, so nobody waits more than a second longer than needed.
"""

import asyncio
import contextlib
import time
from collections.abc import Callable
from dataclasses import dataclass

from juinie_api import telemetry
from juinie_api.core import patience
from juinie_api.store import waking
from juinie_shared.db.pool import Pool
from juinie_shared.domain.errors import Transient
from juinie_shared.domain.ids import RunId

POLL_SECONDS = 1.0
REST_SECONDS = 0.02
"""At most one query in this time, however many commits there are."""
RESTS = 4
"""Thousands of runs take a while to look at: we rest so many times as long as it took, but no longer than a poll."""

type Report = Callable[[str], None]


@dataclass(frozen=True, slots=True, eq=False)
class _Waiter:
    run_id: RunId
    after_seq: int | None
    woken: asyncio.Future[bool]


class Waker:
    """`run()` it in a task; `wait()` from any number of requests; `committed()` when something was; `drain()` lets all
    who wait go at once."""

    def __init__(self, pool: Pool, report: Report) -> None:
        self._pool, self._report = pool, report
        self._waiters = set[_Waiter]()
        self._committed = asyncio.Event()
        self._draining = False

    async def wait(self, run_id: RunId, after_seq: int | None, timeout_seconds: float) -> bool:
        """True once the run has events after `after_seq` (None: once it has ended) or is gone; False in vain."""
        if self._draining or timeout_seconds <= 0:
            return False
        waiter = _Waiter(run_id, after_seq, asyncio.get_running_loop().create_future())
        self._waiters.add(waiter)
        self._committed.set()  # it may have happened since the caller looked
        try:
            async with asyncio.timeout(timeout_seconds):
                return await waiter.woken
        except TimeoutError:
            return False
        finally:
            self._waiters.discard(waiter)
            patience.begin_again()

    @property
    def waiting(self) -> int:
        return len(self._waiters)

    def committed(self) -> None:
        self._committed.set()

    def drain(self) -> None:
        self._draining = True
        for waiter in self._waiters:
            _wake(waiter, happened=False)

    async def run(self) -> None:
        """Look after the waiters for ever."""
        while True:
            began = time.monotonic()
            await self._look()
            await asyncio.sleep(rest_seconds(time.monotonic() - began))
            await self._next_commit()

    async def _next_commit(self) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(POLL_SECONDS):
                await self._committed.wait()
        self._committed.clear()

    async def _look(self) -> None:
        """One query over all runs that are waited for."""
        waiters = tuple(self._waiters)
        if not waiters:
            return
        try:
            async with self._pool.connection() as connection:
                rows = await connection.fetch(waking.READ_WAITED, list({waiter.run_id for waiter in waiters}))
        except Transient:
            self._report(telemetry.POLL_FAILED)
            return
        standing = {row["run_id"]: row for row in rows}
        for waiter in waiters:
            row = standing.get(waiter.run_id)
            if row is None or row["finished"] or _has_more(row["last_seq"], waiter.after_seq):
                _wake(waiter, happened=True)


def rest_seconds(took_seconds: float) -> float:
    """How long to rest after a look."""
    return min(max(REST_SECONDS, RESTS * took_seconds), POLL_SECONDS)


def _has_more(last_seq: int, after_seq: int | None) -> bool:
    return after_seq is not None and last_seq > after_seq


def _wake(waiter: _Waiter, *, happened: bool) -> None:
    if not waiter.woken.done():
        waiter.woken.set_result(happened)
