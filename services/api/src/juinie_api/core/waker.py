"""Wakes requests that wait for a run: one query for all of them.

A notification only says that something was committed; the runs' rows say what. Behind lost notifications stands a
poll, so nobody waits more than a second longer than needed.

Nobody takes a database that is away for a run that goes on: who waits is told of one that no look sees, and in time; and
who has waited in vain reads again, unless the newest look went well, a moment ago.
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
from juinie_shared.domain.errors import DatabaseBusy, Transient
from juinie_shared.domain.ids import RunId
from juinie_shared.runtime.unbroken import unbroken

POLL_SECONDS = 1.0
REST_SECONDS = 0.02
"""At most one query in this time, however many commits there are."""
RESTS = 4
"""Thousands of runs take a while to look at: we rest so many times as long as it took, but no longer than a poll."""
UNSEEN_SECONDS = 3.4
"""How long a look may fail, or not come back, and the next ones, before who waits is told: a database that starts again is not
away for so long. With the time between two looks below the 5 s of a 503."""
SEEN_SECONDS = 2 * POLL_SECONDS
"""How long ago a look may have begun whose silence is still believed: looks are further apart where this process stood still."""
TELL_SECONDS = 0.2
"""So often is looked whether it has been so long: a look at a database that hangs is no clock."""
STANDSTILL_SECONDS = 0.5
"""A loop that is later than that was not busy, but stopped."""

type Report = Callable[[str], None]


@dataclass(frozen=True, slots=True, eq=False)
class _Waiter:
    """Since `came`, a moment at which it had just read its run. `woken`: whether something happened, or why nobody knows."""

    run_id: RunId
    after_seq: int | None
    woken: asyncio.Future[bool | Transient]
    came: float


class Waker:
    """`run()` it in a task; `wait()` from any number of requests; `committed()` when something was; `drain()` lets all
    who wait go at once.

    `_seen_at`: when the newest look began that went well. `_unseen_since`: when the first of those began that have failed, or not
    come back, in a row since; None: there is none.
    """

    def __init__(self, pool: Pool, report: Report) -> None:
        self._pool, self._report = pool, report
        self._waiters = set[_Waiter]()
        self._committed = asyncio.Event()
        self._draining = False
        self._seen_at = 0.0
        self._unseen_since: float | None = None
        self._excused = False
        """Once in a row of them: a process that is stopped again and again tells all the same."""
        self._failed: Transient | None = None

    async def wait(self, run_id: RunId, after_seq: int | None, timeout_seconds: float) -> bool:
        """Whether to read the run again: it has events after `after_seq` (None: it has ended), or is gone, or the wait is over and
        no look has shown just now that it is as it was. False: one has.

        Raises:
            Transient: the database was not seen for as long as may be.
        """
        if self._draining or timeout_seconds <= 0:
            return False
        waiter = _Waiter(run_id, after_seq, asyncio.get_running_loop().create_future(), time.monotonic())
        self._waiters.add(waiter)
        self._committed.set()  # it may have happened since the caller looked
        try:
            return await self._woken(waiter, timeout_seconds) or not self._has_seen(waiter)
        finally:
            self._waiters.discard(waiter)
            patience.begin_again()

    async def _woken(self, waiter: _Waiter, timeout_seconds: float) -> bool:
        try:
            async with asyncio.timeout(timeout_seconds):
                woken = await waiter.woken
        except TimeoutError:
            return False
        if isinstance(woken, Transient):
            raise woken.with_traceback(None)  # the same for all: it would grow with each
        return woken

    def _has_seen(self, waiter: _Waiter) -> bool:
        seen_at = max(self._seen_at, waiter.came)
        return self._unseen_since is None and time.monotonic() - seen_at < SEEN_SECONDS

    @property
    def waiting(self) -> int:
        return len(self._waiters)

    def committed(self) -> None:
        self._committed.set()

    def drain(self) -> None:
        self._draining = True
        for waiter in self._waiters:
            _wake(waiter, False)

    async def run(self) -> None:
        """Look after the waiters for ever."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(unbroken(self._tell_for_ever))
            await self._look_for_ever()

    async def _look_for_ever(self) -> None:
        """Again when something was committed, and at the latest after a poll."""
        while True:
            began = time.monotonic()
            await self._look()
            rest = rest_seconds(time.monotonic() - began)
            await asyncio.sleep(rest)
            await self._next_commit(POLL_SECONDS - rest)

    async def _next_commit(self, within_seconds: float) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(within_seconds):
                await self._committed.wait()
        self._committed.clear()

    async def _look(self) -> None:
        """One query over all runs that are waited for."""
        waiters = tuple(self._waiters)
        if not waiters:
            return
        began = time.monotonic()
        if self._unseen_since is None:
            self._unseen_since, self._excused = began, False
        patience.begin()  # as a request: one that these still get in time says nothing of the database
        try:
            async with self._pool.connection() as connection:
                rows = await connection.fetch(waking.READ_WAITED, list({waiter.run_id for waiter in waiters}))
        except Transient as error:
            self._report(telemetry.POLL_FAILED)
            self._failed = error
            return
        self._seen_at = began
        self._unseen_since = self._failed = None
        standing = {row["run_id"]: row for row in rows}
        for waiter in waiters:
            row = standing.get(waiter.run_id)
            if row is None or row["finished"] or _has_more(row["last_seq"], waiter.after_seq):
                _wake(waiter, True)

    async def _tell_for_ever(self) -> None:
        """While this process stood still, an answer may have lain here: that time is not the database's."""
        loop = asyncio.get_running_loop()
        while True:
            due = loop.time() + TELL_SECONDS
            await asyncio.sleep(TELL_SECONDS)
            stood_still = loop.time() - due
            if self._unseen_since is not None and stood_still > STANDSTILL_SECONDS and not self._excused:
                self._unseen_since, self._excused = (
                    min(self._unseen_since + stood_still, time.monotonic()),
                    True,
                )
            self._tell(time.monotonic() - UNSEEN_SECONDS)

    def _tell(self, long_ago: float) -> None:
        """Who has waited since then, or longer, hears of a database that was not seen since then."""
        if self._unseen_since is None or self._unseen_since > long_ago:
            return
        for waiter in self._waiters:
            if waiter.came <= long_ago:
                _wake(waiter, self._failed or DatabaseBusy())


def rest_seconds(took_seconds: float) -> float:
    """How long to rest after a look."""
    return min(max(REST_SECONDS, RESTS * took_seconds), POLL_SECONDS)


def _has_more(last_seq: int, after_seq: int | None) -> bool:
    return after_seq is not None and last_seq > after_seq


def _wake(waiter: _Waiter, outcome: bool | Transient) -> None:
    if not waiter.woken.done():
        waiter.woken.set_result(outcome)
