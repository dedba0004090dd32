"""Rows as the API writes them, without the API: under the run's row lock, events and outbox row in one transaction."""

import hashlib
import secrets
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

import msgspec

from juinie_shared.contracts.names import OUTBOX_CHANNEL
from juinie_shared.db.keys import create_key, find_key
from juinie_shared.db.pool import Connection, Pool
from juinie_shared.db.quotas import set_key_quotas, set_tenant_quotas
from juinie_shared.domain.ids import KeyId, RunId, TenantId, new_run_id, shard_of
from juinie_shared.domain.runs import Scope
from juinie_shared.domain.times import format_time

_INSERT_RUN = """
    INSERT INTO run (run_id, tenant_id, shard, agent, thread_id, input, idle_timeout_seconds, deadline_at, fingerprint)
    VALUES ($1, $2, $3, $4, $5, $6, 3600, clock_timestamp() + interval '1 day', $7)
"""

_LOCK_RUN = "SELECT last_seq, shard FROM run WHERE run_id = $1 FOR UPDATE"

_INSERT_EVENT = """
    INSERT INTO run_event (run_id, seq, type, data, occurred_at)
    VALUES ($1, $2, $3, $4, coalesce($5::text::timestamptz, clock_timestamp()))
"""

_INSERT_OUTBOX = """
    INSERT INTO outbox (shard, run_id, first_seq, last_seq, bytes, traceparent) VALUES ($1, $2, $3, $4, $5, $6)
"""

_ADVANCE = "UPDATE run SET last_seq = $2, last_event_at = clock_timestamp() WHERE run_id = $1"

_START = """
    UPDATE run SET status = 'running', attempt = attempt + 1, started_at = coalesce(started_at, clock_timestamp())
    WHERE run_id = $1 RETURNING attempt
"""

_FINISH = """
    UPDATE run SET status = $2, output = $3, error = $4, finished_at = clock_timestamp() WHERE run_id = $1
"""

_DELETE = "UPDATE run SET deleted_at = clock_timestamp() WHERE run_id = $1"
_BURY = "INSERT INTO run_tombstone (run_id) VALUES ($1)"


@dataclass(frozen=True, slots=True)
class SeededKey:
    """An API key that exists: its text, whose it is, its id."""

    text: str
    tenant_id: TenantId
    key_id: KeyId


@dataclass(frozen=True, slots=True)
class Json:
    """Data given as JSON text, to be stored exactly so."""

    text: str


type SeedEvent = tuple[str, object] | tuple[str, object, datetime]
"""An event's type, its data (any JSON value, or `Json` for exact text), and its time if it has one."""


class Seed:
    """Writes rows for tests. `notify`: wake the publisher after each commit, as the API does."""

    def __init__(self, pool: Pool, notify: bool = False) -> None:
        self._pool = pool
        self._notify = notify

    async def key(
        self,
        tenant: str = "a",
        scopes: Iterable[str] = ("read", "write", "admin"),
        expires_in_days: int | None = None,
    ) -> SeededKey:
        """Make an API key of this tenant."""
        async with self._pool.transaction() as connection:
            text = await create_key(connection, tenant, [Scope(scope) for scope in scopes], expires_in_days)
            principal = await find_key(connection, text)
        if principal is None:  # made expired
            raise ValueError(expires_in_days)
        return SeededKey(text, principal.tenant_id, principal.key_id)

    async def limit(
        self, key: SeededKey, tenant: str = "a", *, of_key: bool = False, **quotas: int | None
    ) -> None:
        """Set quotas of this tenant, or of the key alone. Services that know the key already learn it within 30 s."""
        async with self._pool.connection() as connection:
            if of_key:
                await set_key_quotas(connection, key.key_id, quotas)
            else:
                await set_tenant_quotas(connection, tenant, quotas)

    async def run(
        self,
        owner: SeededKey | str,
        run_id: UUID | None = None,
        agent: str = "agent",
        thread_id: str | None = None,
        status: str = "pending",
        traceparent: str | None = None,
    ) -> RunId:
        """Make a run of a key's tenant, or of a tenant by name, with `run.created`, and bring it to `status`."""
        key = await self.key(owner) if isinstance(owner, str) else owner
        run_id = RunId(run_id) if run_id else new_run_id()
        created: dict[str, object] = {"agent": agent, "thread_id": thread_id, "input": None, "metadata": {}}
        async with self._pool.transaction() as connection:
            await connection.execute(
                _INSERT_RUN, run_id, key.tenant_id, shard_of(run_id), agent, thread_id, None,
                hashlib.sha256(secrets.token_bytes(8)).digest(),
            )  # fmt: skip
            await _write(connection, run_id, [("run.created", created)], traceparent)
            if status != "pending":
                await _start(connection, run_id)
        await self._wake()
        if status not in {"pending", "running"}:
            await self.finish(run_id, status)
        return run_id

    async def append(
        self, run_id: UUID, *events: SeedEvent, traceparent: str | None = None, notify: bool = False
    ) -> tuple[int, int]:
        """Append events to a run. Gives the first and the last seq."""
        async with self._pool.transaction() as connection:
            seqs = await _write(connection, run_id, list(events), traceparent)
        await self._wake(notify)
        return seqs

    async def start(self, run_id: UUID) -> int:
        """Bring a run to `running`, with `run.started`. Gives the attempt."""
        async with self._pool.transaction() as connection:
            attempt = await _start(connection, run_id)
        await self._wake()
        return attempt

    async def finish(
        self, run_id: UUID, status: str = "success", output: object = None, error: object = None
    ) -> int:
        """Finish a run, with `run.finished`. Gives its seq."""
        ended = {"status": status, "output": output, "error": error}
        async with self._pool.transaction() as connection:
            _, seq = await _write(connection, run_id, [("run.finished", ended)], None)
            await connection.execute(_FINISH, run_id, status, _text(output), _text(error))
        await self._wake()
        return seq

    async def delete(self, run_id: UUID) -> None:
        """Hide a run and bury its id, as DELETE does."""
        async with self._pool.transaction() as connection:
            await connection.execute(_DELETE, run_id)
            await connection.execute(_BURY, run_id)

    async def _wake(self, notify: bool = False) -> None:
        if self._notify or notify:
            async with self._pool.connection() as connection:
                await connection.execute(f"NOTIFY {OUTBOX_CHANNEL}")


async def _start(connection: Connection, run_id: UUID) -> int:
    attempt: int = await connection.fetchval(_START, run_id)
    await _write(connection, run_id, [("run.started", {"attempt": attempt, "worker_id": None})], None)
    return attempt


async def _write(
    connection: Connection, run_id: UUID, events: list[SeedEvent], traceparent: str | None
) -> tuple[int, int]:
    """Events and their outbox row, at the run's next seqs. Relies on the run's row lock, held to the commit."""
    run = await connection.fetchrow(_LOCK_RUN, run_id)
    if run is None:
        raise LookupError(run_id)
    first, last = run["last_seq"] + 1, run["last_seq"] + len(events)
    rows = [
        (run_id, first + index, event[0], _json(event[1]), format_time(event[2]) if len(event) > 2 else None)
        for index, event in enumerate(events)
    ]
    await connection.executemany(_INSERT_EVENT, rows)
    size = sum(len(row[3].encode()) for row in rows)
    await connection.execute(_INSERT_OUTBOX, run["shard"], run_id, first, last, size, traceparent)
    await connection.execute(_ADVANCE, run_id, last)
    return first, last


def _json(data: object) -> str:
    return data.text if isinstance(data, Json) else msgspec.json.encode(data).decode()


def _text(data: object) -> str | None:
    return None if data is None else _json(data)
