"""Create a run: its row, `run.created` as seq 1, its outbox row, its key, in one statement."""

from collections.abc import Callable
from dataclasses import dataclass

import asyncpg

from juinie_api.core.run import Run, run_of
from juinie_api.store import runs
from juinie_shared.contracts.run_event_data import created_data
from juinie_shared.db.pool import Connection, Pool
from juinie_shared.domain.errors import IdempotencyKeyReused, RunIdTaken, RunNotFound
from juinie_shared.domain.ids import RunId, TenantId, shard_of


@dataclass(frozen=True, slots=True)
class NewRun:
    """What a client asks for. `input` and `metadata` are JSON text; `fingerprint` is that of the whole request."""

    run_id: RunId
    tenant_id: TenantId
    agent: str
    thread_id: str | None
    input: str | None
    metadata: str
    timeout_seconds: float
    idle_timeout_seconds: int
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
    """
    async with pool.connection() as connection:
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
