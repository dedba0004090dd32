"""Create a run: its row, `run.created` as seq 1, its outbox row, its key, in one statement."""

from collections.abc import Callable
from dataclasses import dataclass

import asyncpg

from juinie_api.core.run import Run, run_of
from juinie_api.store import runs
from juinie_shared.contracts.run_event_data import created_data
from juinie_shared.db.pool import Connection, Pool
from juinie_shared.domain.errors import IdempotencyKeyReused, RunIdTaken, RunNotFound, TooManyActiveRuns
from juinie_shared.domain.ids import RunId, TenantId, shard_of

RETRY_SECONDS = 5


@dataclass(frozen=True, slots=True)
class NewRun:
    """What a client asks for. `active_runs`: refused where the tenant has so many already. `input` and `metadata` are JSON text; `fingerprint` is that of the whole request."""

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


@dataclass(frozen=True, slots=True)
class Created:
    """The run. `new`: made just now. `replayed`: the Idempotency-Key was used before, with the same request."""

    run: Run
    new: bool
    replayed: bool = False


async def create(pool: Pool, wake_publisher: Callable[[], None], new: NewRun) -> Created:
    """Create the run, or find the one that the same request made before.

    Raises:
        RunIdTaken: another request has, or had, a run of this id.
        IdempotencyKeyReused: the key came with another request.
        TooManyActiveRuns: the tenant has as many as it may.
    """
    async with pool.connection() as connection:
        if new.active_runs is not None and await _is_full(connection, new.tenant_id, new.active_runs):
            return await _find_twin_or_refuse(connection, new)
        try:
            made = await _insert(connection, new)
        except asyncpg.UniqueViolationError:  # the key or the id is taken, maybe by a twin that we waited for
            return await _find_twin(connection, new)
        if not made:  # a deleted run's id; its key is remembered all the same
            return await _find_twin(connection, new)
        created = Created(await _read(connection, new.run_id, new.tenant_id), new=True)
    wake_publisher()
    return created


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
    )
    return made is not None


async def _is_full(connection: Connection, tenant_id: TenantId, limit: int) -> bool:
    """Creates that are in flight at once may all see the same count: it is passed by no more than those."""
    return await connection.fetchval(runs.COUNT_ACTIVE, tenant_id, limit) >= limit


async def _find_twin_or_refuse(connection: Connection, new: NewRun) -> Created:
    """A request that made its run before is answered all the same."""
    try:
        return await _find_twin(connection, new)
    except RunIdTaken as error:
        raise TooManyActiveRuns(RETRY_SECONDS, ["tenant-active-runs"]) from error


async def _find_twin(connection: Connection, new: NewRun) -> Created:
    if new.key is not None:
        row = await connection.fetchrow(runs.FIND_CREATE_KEY, new.tenant_id, new.key)
        if row is None:
            raise RunIdTaken
        if row["fingerprint"] != new.fingerprint:
            raise IdempotencyKeyReused
        return Created(await _read(connection, row["run_id"], new.tenant_id), new=False, replayed=True)
    fingerprint = await connection.fetchval(runs.FIND_CREATED, new.run_id, new.tenant_id)
    if fingerprint != new.fingerprint:
        raise RunIdTaken
    return Created(await _read(connection, new.run_id, new.tenant_id), new=False)


async def _read(connection: Connection, run_id: RunId, tenant_id: TenantId) -> Run:
    row = await connection.fetchrow(runs.READ_RUN, run_id, tenant_id)
    if row is None:
        raise RunNotFound
    return run_of(row)
