"""Create a run: its row, `run.created` as seq 1, its outbox row, its key, in one statement.

A run that is claimed at birth is its creator's from the start. No worker ever sees it wait.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import asyncpg

from juinie_api.core.claim import Claimant
from juinie_api.core.lease import Lease, lease_of
from juinie_api.core.run import Run, run_of
from juinie_api.core.written import written
from juinie_api.store import runs
from juinie_shared.contracts.run_event_data import created_data
from juinie_shared.db.pool import Connection, Pool
from juinie_shared.domain.errors import IdempotencyKeyReused, RunIdTaken, RunNotFound, TooManyActiveRuns
from juinie_shared.domain.ids import KeyId, RunId, TenantId, shard_of

RETRY_SECONDS = 5


@dataclass(frozen=True, slots=True)
class KeyLimit:
    """How many unfinished runs a key may have: of those that it made while it had a limit."""

    key_id: KeyId
    active_runs: int


@dataclass(frozen=True, slots=True)
class NewRun:
    """What a client asks for. `active_runs`: refused where the tenant has so many already; `key_limit`: where its key has.
    `input` and `metadata` are JSON text; `fingerprint` is that of the whole request. `claimant`: who works on it from the
    start; None: it waits for a worker.
    """

    run_id: RunId
    tenant_id: TenantId
    agent: str
    thread_id: str | None
    input: str | None
    metadata: str
    timeout_seconds: float
    idle_timeout_seconds: int
    active_runs: int | None
    fingerprint: bytes
    key: str | None
    traceparent: str | None
    claimant: Claimant | None = None
    key_limit: KeyLimit | None = None


@dataclass(frozen=True, slots=True)
class Created:
    """The run. `new`: made just now. `replayed`: the Idempotency-Key was used before, with the same request.

    `lease`: that of its birth, for who asked for it, while it holds.
    """

    run: Run
    new: bool
    replayed: bool = False
    lease: Lease | None = None


async def create(pool: Pool, wake: Callable[[], None], new: NewRun) -> Created:
    """Create the run, or find the one that the same request made before. `wake` tells of what was committed.

    Raises:
        RunIdTaken: another request has, or had, a run of this id.
        IdempotencyKeyReused: the key came with another request.
        TooManyActiveRuns: the tenant or the key has as many as it may.
        DatabaseAway: also when it is made, and could not be read again.
    """
    async with pool.connection() as connection:
        if reached := await _reached(connection, new):
            return await _find_twin_or_refuse(connection, new, reached)
        try:
            made = await _insert(connection, new)
        except asyncpg.UniqueViolationError:  # the key or the id is taken, maybe by a twin that we waited for
            return await _find_twin(connection, new)
        if not made:  # a deleted run's id; its key is remembered all the same
            return await _find_twin(connection, new)
        wake()
        with written():
            run, lease = await _read(connection, new.run_id, new)
    return Created(run, new=True, lease=lease)


async def _insert(connection: Connection, new: NewRun) -> bool:
    data = created_data(new.agent, new.thread_id, new.input, new.metadata)
    made = await connection.fetchval(
        runs.CREATE,
        new.run_id,
        new.tenant_id,
        shard_of(new.run_id),
        new.agent,
        new.thread_id,
        new.input,
        new.metadata,
        new.fingerprint,
        new.idle_timeout_seconds,
        new.timeout_seconds,
        data,
        new.traceparent,
        new.key,
        new.claimant and new.claimant.worker_id,
        new.claimant and new.claimant.worker_json,
        new.claimant and new.claimant.lease_seconds,
        new.key_limit and new.key_limit.key_id,
    )
    return made is not None


async def _reached(connection: Connection, new: NewRun) -> list[str]:
    """The limits that are. Creates that are in flight at once may all see the same count: it is passed by no more than those."""
    reached = list[str]()
    limit, of_key = new.active_runs, new.key_limit
    if limit is not None and await connection.fetchval(runs.COUNT_ACTIVE, new.tenant_id, limit) >= limit:
        reached.append("tenant-active-runs")
    if of_key is not None:
        active = await connection.fetchval(runs.COUNT_ACTIVE_OF_KEY, of_key.key_id, of_key.active_runs)
        if active >= of_key.active_runs:
            reached.append("key-active-runs")
    return reached


async def _find_twin_or_refuse(connection: Connection, new: NewRun, reached: Sequence[str]) -> Created:
    """A request that made its run before is answered all the same."""
    try:
        return await _find_twin(connection, new)
    except RunIdTaken as error:
        raise TooManyActiveRuns(RETRY_SECONDS, reached) from error


async def _find_twin(connection: Connection, new: NewRun) -> Created:
    """The run of an equal request. Its lease goes only to who shows the key again: an equal request without one may be
    another worker's, of the same name, and one lease must never be two workers'.
    """
    if new.key is not None:
        row = await connection.fetchrow(runs.FIND_CREATE_KEY, new.tenant_id, new.key)
        if row is None:
            raise RunIdTaken
        if row["fingerprint"] != new.fingerprint:
            raise IdempotencyKeyReused
        run, lease = await _read(connection, row["run_id"], new)
        return Created(run, new=False, replayed=True, lease=lease)
    fingerprint = await connection.fetchval(runs.FIND_CREATED, new.run_id, new.tenant_id)
    if fingerprint != new.fingerprint:
        raise RunIdTaken
    run, _ = await _read(connection, new.run_id, new)
    return Created(run, new=False)


async def _read(connection: Connection, run_id: RunId, new: NewRun) -> tuple[Run, Lease | None]:
    """The run, and its lease while that is the one of its birth: attempt 1 of a run that was claimed then."""
    row = await connection.fetchrow(runs.READ_HELD_RUN, run_id, new.tenant_id)
    if row is None:
        raise RunNotFound
    born_claimed = new.claimant is not None and row["attempt"] == 1
    return run_of(row), lease_of(row) if born_claimed else None
