"""Commit events to a run. Everything that an acknowledged append promises is decided here and in `store.events.APPEND`.

    lock the run's row → give the next seqs → events + outbox row (+ key) → commit → wake the publisher

One statement does all of it, so an append is there whole or not at all; what was acknowledged is committed, and its
outbox row with it. The publisher is woken after the commit: inside it, NOTIFY would take a lock that all appends
of the whole database queue for.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol
from uuid import UUID

import asyncpg

from juinie_api.core.lanes import RunLanes, Turn
from juinie_api.core.run import Run, run_of
from juinie_api.core.tenant_pools import TenantPools
from juinie_api.core.written import written
from juinie_api.store import events, runs
from juinie_shared.db.pool import Connection, Row
from juinie_shared.domain.errors import (
    IdempotencyKeyReused,
    LeaseLost,
    RunFinished,
    RunFull,
    RunNotClaimed,
    RunNotFound,
)
from juinie_shared.domain.events import NewEvent
from juinie_shared.domain.ids import RunId, Seq, TenantId
from juinie_shared.domain.runs import RunStatus
from juinie_shared.domain.times import format_time


@dataclass(frozen=True, slots=True)
class Once:
    """An Idempotency-Key: the second request with it, if it is the same one, is answered as the first."""

    key: str
    route: str
    fingerprint: bytes


@dataclass(frozen=True, slots=True)
class Ending:
    """How a run ends. `output` and `error` are JSON text, or None for null."""

    status: RunStatus
    output: str | None
    error: str | None


@dataclass(frozen=True, slots=True)
class Append:
    """What one request adds to a run.

    `starts`: it starts a run that nobody has started yet. `ending`: its last event is `run.finished`, and the run
    ends with it. `asks_cancel`: one of its events is `run.cancel_requested`. `lease`: it is refused unless this is
    the run's lease. `events_per_run`: it is refused where the run would have more events with it, those that retention
    removed among them; one that ends the run never is. None: any number.
    """

    run_id: RunId
    tenant_id: TenantId
    events: Sequence[NewEvent]
    starts: bool = True
    lease: UUID | None = None
    once: Once | None = None
    ending: Ending | None = None
    asks_cancel: bool = False
    traceparent: str | None = None
    events_per_run: int | None = None


@dataclass(frozen=True, slots=True)
class Appended:
    """What was committed: the seqs of the caller's own events, and what the worker should know of its run.

    `replayed`: nothing new was written; this is how the first request with the key was answered. `run`: as it is now,
    where this append ended it.
    """

    first_seq: Seq
    last_seq: Seq
    status: RunStatus
    cancel_requested: bool
    replayed: bool = False
    run: Run | None = None


class Appender(Protocol):
    """Commits appends. The seam where many appends may come to share one commit."""

    async def commit(self, append: Append) -> Appended:
        """Commit it, or raise and leave nothing of it behind.

        Raises:
            RunNotFound: there is no such run, for this tenant.
            RunFinished: it has ended.
            LeaseLost: `lease` is not the run's.
            RunNotClaimed: it is to end in success, and waits for the worker of its next attempt.
            RunFull: it would have more events than it may.
            IdempotencyKeyReused: the key came with another request before.
            Transient: the database is away, or the run's row stayed locked.
        """
        ...


class OneByOne:
    """An `Appender` with one statement, and so one commit, an append."""

    def __init__(self, pools: TenantPools, lanes: RunLanes, wake_publisher: Callable[[], None]) -> None:
        self._pools = pools
        self._lanes = lanes
        self._wake_publisher = wake_publisher

    async def commit(self, append: Append) -> Appended:
        """As `Appender.commit`."""
        async with (
            self._lanes.turn(append.tenant_id, append.run_id) as turn,
            self._pools.of(append.tenant_id, turn.seconds_left()).connection() as connection,
        ):
            try:
                row = await _write_in_time(connection, append, turn)
            except asyncpg.UniqueViolationError as error:
                if _constraint_of(error) != "append_key_pkey":
                    raise
                return await _replay(connection, append)  # a twin has committed, maybe while we waited
            if row is None:
                raise RunNotFound
            if row["first_seq"] is None:  # nothing was written
                return await _explain(connection, append, row)
            self._wake_publisher()
            return await _committed(connection, append, row)


async def write(connection: Connection, append: Append) -> Row | None:
    """Run the statement. None: no such run. `first_seq` is NULL: refused, `open`, `fenced`, `claimed` and `fits` say why."""
    ending = append.ending
    return await connection.fetchrow(
        events.APPEND,
        append.run_id,
        append.tenant_id,
        append.lease,
        append.starts,
        [event.type for event in append.events],
        [event.data for event in append.events],
        [event.time and format_time(event.time) for event in append.events],
        ending and ending.status.value,
        ending and ending.output,
        ending and ending.error,
        append.asks_cancel,
        size_of(append.events),
        append.traceparent,
        append.once and append.once.key,
        append.once and append.once.route,
        append.once and append.once.fingerprint,
        append.events_per_run,
    )


def size_of(events: Iterable[NewEvent]) -> int:
    """Bytes of their data, in UTF-8."""
    return sum([len(event.data) if event.data.isascii() else len(event.data.encode()) for event in events])


async def _write_in_time(connection: Connection, append: Append, turn: Turn) -> Row | None:
    """As `write`. A row that stays locked is waited for again, as long as the turn has time left."""
    while True:
        try:
            return await write(connection, append)
        except asyncpg.LockNotAvailableError:
            if not turn.seconds_left():
                raise


async def _committed(connection: Connection, append: Append, row: Row) -> Appended:
    """With the run where it has ended, read before anything else can fail: the ending is durable by now.

    Raises:
        DatabaseAway: it is written, and could not be read again.
    """
    if append.ending is None:
        return appended(row)
    with written():
        ended = await connection.fetchrow(runs.READ_RUN, append.run_id, append.tenant_id)
    return appended(row, run=run_of(ended) if ended else None)


async def _explain(connection: Connection, append: Append, row: Row) -> Appended:
    """Why nothing was written. A key that was used before is answered as then, whatever happened to the run since."""
    if append.once is not None and (replayed := await _find_replay(connection, append.run_id, append.once)):
        return replayed
    if not row["open"]:
        raise RunFinished
    if not row["fenced"]:
        raise LeaseLost
    raise RunFull if row["claimed"] else RunNotClaimed


async def _replay(connection: Connection, append: Append) -> Appended:
    """The answer that the winner of two requests with one key got."""
    replayed = append.once and await _find_replay(connection, append.run_id, append.once)
    if replayed is None:  # the winner's row went with its run, between two statements
        raise RunNotFound
    return replayed


async def _find_replay(connection: Connection, run_id: RunId, once: Once) -> Appended | None:
    row = await connection.fetchrow(events.FIND_APPEND_KEY, run_id, once.key)
    if row is None:
        return None
    if (row["route"], row["fingerprint"]) != (once.route, once.fingerprint):
        raise IdempotencyKeyReused
    return appended(row, replayed=True)


def _constraint_of(error: asyncpg.UniqueViolationError) -> str | None:
    return getattr(error, "constraint_name", None)


def appended(row: Row, *, replayed: bool = False, run: Run | None = None) -> Appended:
    """What a row of the statement says."""
    return Appended(
        Seq(row["first_seq"]),
        Seq(row["last_seq"]),
        RunStatus(row["status"]),
        row["cancel_requested"],
        replayed,
        run,
    )
