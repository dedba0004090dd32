"""Runs that are due: taken under their row locks, judged, and changed, in one transaction.

The invariant that the sweeper builds on: what is judged is what is changed. A run's row is locked before it is looked
at, so an append, a heartbeat or a finish comes either before, and is seen, or after, and sees what the sweeper did.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from juinie_publisher.store.kept_runs import ALONG_INDEX
from juinie_shared.contracts.names import OUTBOX_CHANNEL, PENDING_CHANNEL
from juinie_shared.db.pool import Connection, Pool, Row
from juinie_shared.domain.errors import Transient
from juinie_shared.domain.events import NewEvent
from juinie_shared.domain.ids import RunId
from juinie_shared.domain.runs import RunStatus

_LOCKED = """
    WITH locked AS MATERIALIZED (
        SELECT run_id, status, deleted_at IS NOT NULL AS deleted, attempt, cancel_requested_at, lease_expires_at,
               deadline_at, last_event_at + make_interval(secs => idle_timeout_seconds) AS idle_at
        FROM run {which}
        FOR NO KEY UPDATE SKIP LOCKED
    )
    SELECT locked.*, clock_timestamp() AS now FROM locked
"""

TAKE_DUE = _LOCKED.format(which="WHERE due_at <= (SELECT clock_timestamp()) ORDER BY due_at LIMIT $1")
"""The runs that have waited longest, at most $1. Takes their row locks; a locked one has a writer, and comes next time.

By run_due_idx: the clock stands in a subquery because a volatile function is no bound of an index. `now` is read after
the lock, so a moment that is past is past for whoever held the row before, too.
"""

TAKE_ONE = _LOCKED.format(which="WHERE run_id = $1 AND coalesce(due_at <= clock_timestamp(), false)")
"""One run, if it is still due and nobody has it. By run_pkey, and by no other index: `coalesce` sees to that."""

FIND_DUE = "SELECT run_id FROM run WHERE due_at <= (SELECT clock_timestamp()) ORDER BY due_at LIMIT $1"
"""No lock. By run_due_idx."""

# $1 runs · $2 new statuses, NULL: as it was · $3 errors · $4 when they are due again · $5 $6 types and data of their
# events, NULL: none · $7 traceparent
CHANGE = """
    WITH judged AS MATERIALIZED (
        SELECT * FROM unnest($1::uuid[], $2::text[], $3::text[], $4::timestamptz[], $5::text[], $6::text[])
            AS j (run_id, status, error, due_at, type, data)
    ), changed AS (
        UPDATE run SET
            due_at = judged.due_at,
            status = coalesce(judged.status, run.status),
            last_seq = run.last_seq + (judged.type IS NOT NULL)::int,
            last_event_at = CASE WHEN judged.type IS NULL THEN run.last_event_at ELSE clock_timestamp() END,
            error = CASE WHEN judged.status IS NULL THEN run.error ELSE judged.error END,
            finished_at = CASE WHEN judged.type = 'run.finished' THEN clock_timestamp() ELSE run.finished_at END,
            lease_token = CASE WHEN judged.status IS NULL THEN run.lease_token END,
            lease_worker_id = CASE WHEN judged.status IS NULL THEN run.lease_worker_id END,
            lease_seconds = CASE WHEN judged.status IS NULL THEN run.lease_seconds END,
            lease_expires_at = CASE WHEN judged.status IS NULL THEN run.lease_expires_at END
        FROM judged WHERE run.run_id = judged.run_id
        RETURNING run.run_id, run.shard, run.last_seq, judged.type, judged.data
    ), events AS (
        INSERT INTO run_event (run_id, seq, type, data, occurred_at)
        SELECT run_id, last_seq, type, data, clock_timestamp() FROM changed WHERE type IS NOT NULL
    )
    INSERT INTO outbox (shard, run_id, first_seq, last_seq, bytes, traceparent)
    SELECT shard, run_id, last_seq, last_seq, octet_length(data), $7::text FROM changed WHERE type IS NOT NULL
"""
"""What was decided, for all of a batch. Counts on the row locks of TAKE_DUE or TAKE_ONE in the same transaction: seq
and outbox id are given under them and held to the commit, as an append's are."""

PUT_OFF = "UPDATE run SET due_at = clock_timestamp() + make_interval(secs => $2::float8) WHERE run_id = $1"
"""By run_pkey. Waits for the row's lock, for as long as `lock_timeout` allows."""

OVERDUE = """
    SELECT count(*) FROM (
        SELECT FROM run WHERE due_at < (SELECT clock_timestamp() - make_interval(secs => $1::float8))
        ORDER BY due_at LIMIT 10000
    ) AS overdue
"""
"""By run_due_idx, and ALONG_INDEX: where many are thought to be overdue, all runs would be read. It counts to ten thousand at most, so that a
long queue costs no more than that."""


@dataclass(frozen=True, slots=True)
class DueRun:
    """A run as it stands under its row lock; every moment and `now` are of the database's clock."""

    run_id: RunId
    status: RunStatus
    deleted: bool
    attempt: int
    cancel_requested_at: datetime | None
    lease_expires_at: datetime | None
    deadline_at: datetime
    idle_at: datetime
    now: datetime


@dataclass(frozen=True, slots=True)
class Change:
    """What becomes of a run: its new status (None: as it was) with the event that says so, and when it is due again."""

    due_at: datetime | None
    status: RunStatus | None = None
    error: str | None = None
    event: NewEvent | None = None


@dataclass(frozen=True, slots=True)
class Decision:
    """The changes of a batch, one a run and in their order, and the trace that their events carry."""

    changes: Sequence[Change]
    traceparent: str | None = None


type Decide = Callable[[Sequence[DueRun]], Decision]


class DueRunStore:
    """The runs that the sweeper has to look at. `sweep` and `sweep_one` are one short transaction each."""

    def __init__(self, pool: Pool, on_unnotified: Callable[[Transient], None] = lambda _error: None) -> None:
        """`on_unnotified`: called when a sweep is committed, and whoever waits for it could not be notified."""
        self._pool = pool
        self._on_unnotified = on_unnotified

    async def sweep(self, batch: int, decide: Decide) -> int:
        """Take up to `batch` due runs, and change them as `decide` says. Gives how many there were."""
        return await self._sweep(TAKE_DUE, batch, decide)

    async def sweep_one(self, run_id: RunId, decide: Decide) -> int:
        """The same for one run: 0 when it is due no more, or somebody writes to it."""
        return await self._sweep(TAKE_ONE, run_id, decide)

    async def find_due(self, limit: int) -> list[RunId]:
        async with self._pool.connection() as connection:
            return [RunId(row["run_id"]) for row in await connection.fetch(FIND_DUE, limit)]

    async def put_off(self, run_id: RunId, seconds: float) -> None:
        """Look at this run again in so many seconds."""
        async with self._pool.connection() as connection:
            await connection.execute(PUT_OFF, run_id, seconds)

    async def count_overdue(self, seconds: float) -> int:
        """How many runs have been due for longer than that."""
        async with self._pool.transaction() as tx:
            await tx.execute(ALONG_INDEX)
            return await tx.fetchval(OVERDUE, seconds)

    async def _sweep(self, take: str, which: object, decide: Decide) -> int:
        async with self._pool.transaction() as tx:
            runs = [_due_run(row) for row in await tx.fetch(take, which)]
            if not runs:
                return 0
            decision = decide(runs)
            await _change(tx, runs, decision)
        if any(change.event for change in decision.changes):
            waits = any(change.status is RunStatus.PENDING for change in decision.changes)
            await self._notify(*[OUTBOX_CHANNEL, PENDING_CHANNEL][: 1 + waits])
        return len(runs)

    async def _notify(self, *channels: str) -> None:
        """After the commit: the publishers, and the workers where a run waits for one. Whoever is not reached polls."""
        try:
            async with self._pool.connection() as connection:
                await connection.execute(";".join(f"NOTIFY {channel}" for channel in channels))
        except Transient as error:
            self._on_unnotified(error)


async def _change(tx: Connection, runs: Sequence[DueRun], decision: Decision) -> None:
    changes = decision.changes
    await tx.execute(
        CHANGE,
        [run.run_id for run in runs],
        [change.status and change.status.value for change in changes],
        [change.error for change in changes],
        [change.due_at for change in changes],
        [change.event and change.event.type for change in changes],
        [change.event and change.event.data for change in changes],
        decision.traceparent,
    )


def _due_run(row: Row) -> DueRun:
    values: dict[str, Any] = {**row, "status": RunStatus(row["status"])}
    return DueRun(**values)
