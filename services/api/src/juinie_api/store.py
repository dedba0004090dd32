"""All SQL of the api, as named constants: which lock and which index each counts on stands above it.

Times are the database's `clock_timestamp()`: `now()` is the start of the transaction, before the wait for a lock.
"""

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import and_, or_, select
from sqlmodel import col

from juinie_shared.db.event_json import EVENT_JSON
from juinie_shared.db.pool import Connection, Row
from juinie_shared.db.select import fetch
from juinie_shared.db.tables import Run
from juinie_shared.domain.ids import RunId, TenantId

RUN_FROM = """
    SELECT run_id, agent, thread_id, status, input, output, error, metadata, last_seq, attempt,
           cancel_requested_at IS NOT NULL AS cancel_requested, created_at, started_at, finished_at, deadline_at
    FROM run
"""
"""What a client sees of a run."""

# The run, its first event, its outbox row and its key: all or nothing. Counts on three unique indexes, never on
# ON CONFLICT: run_pkey (the id is free), create_key_pkey (the key is new; a twin in flight is waited for), and
# run_tombstone_pkey (the id was never used by a run that is deleted).
CREATE = """
    WITH clock AS MATERIALIZED (
        SELECT clock_timestamp() AS now
    ), made AS (
        INSERT INTO run (run_id, tenant_id, shard, agent, thread_id, input, metadata, last_seq, fingerprint,
                         idle_timeout_seconds, deadline_at, created_at, last_event_at)
        SELECT $1::uuid, $2::uuid, $3::smallint, $4::text, $5::text, $6::text, $7::text, 1, $8::bytea,
               $9::int, now + make_interval(secs => $10::float8), now, now
        FROM clock WHERE NOT EXISTS (SELECT FROM run_tombstone WHERE run_id = $1)
        RETURNING run_id, tenant_id, shard, created_at
    ), event AS (
        INSERT INTO run_event (run_id, seq, type, data, occurred_at)
        SELECT run_id, 1, 'run.created', $11::text, created_at FROM made
    ), row AS (
        INSERT INTO outbox (shard, run_id, first_seq, last_seq, bytes, traceparent)
        SELECT shard, run_id, 1, 1, octet_length($11), $12::text FROM made
    ), remembered AS (
        INSERT INTO create_key (tenant_id, key, fingerprint, run_id)
        SELECT tenant_id, $13::text, $8, run_id FROM made WHERE $13 IS NOT NULL
    )
    SELECT run_id FROM made
"""

# By create_key_pkey.
FIND_CREATE_KEY = "SELECT run_id, fingerprint FROM create_key WHERE tenant_id = $1 AND key = $2"

# By run_pkey.
FIND_CREATED = "SELECT fingerprint FROM run WHERE run_id = $1 AND tenant_id = $2 AND deleted_at IS NULL"

# The load-bearing one. `locked` takes the run's row lock and, having waited for it, sees the row as the winner left
# it; all else is computed from there. Seqs and the outbox id are both taken under that lock and held to the commit,
# so within a run: id order = seq order = commit order. A key that is there already fails the whole statement
# (append_key_pkey), without ON CONFLICT: that would leave last_seq ahead of the events. Times come as text: as values,
# asyncpg takes the first and the last moment of the calendar for infinity, which has no JSON.
#
# $1 run, $2 tenant, $3 lease · $4 may start the run · $5 $6 $7 types, data and times of the events · $8 $9 $10 status,
# output and error of the end · $11 asks to cancel · $12 bytes, $13 traceparent · $14 $15 $16 key, route, fingerprint
APPEND = """
    WITH locked AS MATERIALIZED (
        SELECT shard, status, last_seq, attempt,
               status IN ('pending', 'running') AS open,
               $3::uuid IS NULL OR lease_token IS NOT DISTINCT FROM $3 AS fenced
        FROM run
        WHERE run_id = $1::uuid AND tenant_id = $2::uuid AND deleted_at IS NULL
        FOR UPDATE
    ), turn AS (
        SELECT shard, status, last_seq AS before_seq, attempt,
               ($4::bool AND attempt = 0)::int AS starts
        FROM locked WHERE open AND fenced
    ), taken AS (
        UPDATE run SET
            last_seq = turn.before_seq + turn.starts + cardinality($5::text[]),
            attempt = turn.attempt + turn.starts,
            status = coalesce($8::text, CASE turn.starts WHEN 1 THEN 'running' ELSE turn.status END),
            started_at = CASE turn.starts WHEN 1 THEN clock_timestamp() ELSE run.started_at END,
            output = $9::text,
            error = $10::text,
            finished_at = CASE WHEN $8 IS NOT NULL THEN clock_timestamp() END,
            cancel_requested_at = CASE WHEN $11::bool THEN clock_timestamp() ELSE run.cancel_requested_at END,
            lease_token = CASE WHEN $8 IS NULL THEN run.lease_token END,
            lease_expires_at = CASE
                WHEN $8 IS NOT NULL THEN NULL
                WHEN $3 IS NOT NULL THEN clock_timestamp() + make_interval(secs => run.lease_seconds)
                ELSE run.lease_expires_at END,
            last_event_at = clock_timestamp()
        FROM turn WHERE run.run_id = $1
        RETURNING turn.before_seq, turn.starts, run.last_seq, run.status,
                  run.cancel_requested_at IS NOT NULL AS cancel_requested
    ), events AS (
        INSERT INTO run_event (run_id, seq, type, data, occurred_at)
        SELECT $1, before_seq + 1, 'run.started', '{"attempt":1,"worker_id":null}', clock_timestamp()
        FROM turn WHERE starts = 1
        UNION ALL
        SELECT $1, before_seq + starts + e.position, e.type, e.data, coalesce(e.time::timestamptz, clock_timestamp())
        FROM turn, unnest($5::text[], $6::text[], $7::text[]) WITH ORDINALITY AS e (type, data, time, position)
    ), row AS (
        INSERT INTO outbox (shard, run_id, first_seq, last_seq, bytes, traceparent)
        SELECT turn.shard, $1, turn.before_seq + 1, taken.last_seq, $12::int, $13::text FROM turn, taken
    ), remembered AS (
        INSERT INTO append_key (run_id, key, route, fingerprint, first_seq, last_seq, status, cancel_requested)
        SELECT $1, $14::text, $15::text, $16::bytea, before_seq + starts + 1, last_seq, status, cancel_requested
        FROM taken WHERE $14 IS NOT NULL
    )
    SELECT locked.open, locked.fenced, taken.before_seq + taken.starts + 1 AS first_seq, taken.last_seq,
           coalesce(taken.status, locked.status) AS status, taken.cancel_requested
    FROM locked LEFT JOIN taken ON true
"""

# By append_key_pkey.
FIND_APPEND_KEY = """
    SELECT route, fingerprint, first_seq, last_seq, status, cancel_requested
    FROM append_key WHERE run_id = $1 AND key = $2
"""

# Takes the run's row lock for the rest of the transaction. By run_pkey.
LOCK_RUN = RUN_FROM + "WHERE run_id = $1 AND tenant_id = $2 AND deleted_at IS NULL FOR UPDATE"

# By run_pkey.
READ_RUN = RUN_FROM + "WHERE run_id = $1 AND tenant_id = $2 AND deleted_at IS NULL"

# Under the run's row lock: hides the run and takes its id for ever, or neither.
DELETE = """
    WITH locked AS MATERIALIZED (
        SELECT run_id, status NOT IN ('pending', 'running') AS finished FROM run
        WHERE run_id = $1 AND tenant_id = $2 AND deleted_at IS NULL
        FOR UPDATE
    ), hidden AS (
        UPDATE run SET deleted_at = clock_timestamp() FROM locked
        WHERE run.run_id = locked.run_id AND locked.finished
        RETURNING run.run_id, run.deleted_at
    ), buried AS (
        INSERT INTO run_tombstone (run_id, deleted_at) SELECT run_id, deleted_at FROM hidden
    )
    SELECT finished FROM locked
"""

# By run_tenant_thread_idx, backwards.
ACTIVE_RUN = (
    RUN_FROM
    + """
    WHERE tenant_id = $1 AND thread_id = $2 AND status IN ('pending', 'running') AND deleted_at IS NULL
    ORDER BY created_at DESC, run_id DESC LIMIT 1
"""
)

# By run_pkey. Where a run stands: read before its events, so that no page goes past what it says.
READ_HEAD = """
    SELECT last_seq, retained_from_seq, status NOT IN ('pending', 'running') AS finished
    FROM run WHERE run_id = $1 AND tenant_id = $2 AND deleted_at IS NULL
"""

# By run_event_pkey, from `after` on. `bytes_before` cuts a page of huge events short: lengths are known without
# reading the values themselves. At least one event always fits.
READ_EVENTS = f"""
    SELECT e.seq, {EVENT_JSON} AS json
    FROM (
        SELECT seq, type, data, occurred_at, sum(octet_length(data)) OVER (ORDER BY seq) - octet_length(data) AS bytes_before
        FROM (
            SELECT seq, type, data, occurred_at FROM run_event
            WHERE run_id = $1 AND seq > $2 AND seq <= $3
                AND ($4::text[] IS NULL OR type = ANY ($4) OR type = 'run.finished')
            ORDER BY seq LIMIT $5
        ) AS page
    ) AS e
    WHERE e.bytes_before = 0 OR e.bytes_before < $6
    ORDER BY e.seq
"""  # noqa: S608 - made of constants

# By run_pkey, all runs that somebody waits for at once. A run that is gone has no row here.
READ_WAITED = """
    SELECT run_id, last_seq, status NOT IN ('pending', 'running') AS finished
    FROM run WHERE run_id = ANY ($1::uuid[]) AND deleted_at IS NULL
"""

NOTIFY = "NOTIFY {channel}"

# Harmless to repeat: so it also shows whether a connection that listens still has its other end.
LISTEN = "LISTEN {channel}"


@dataclass(frozen=True, slots=True)
class ListFilter:
    """Which runs a list holds; `before` is the (created_at, run_id) of the last one on the page before."""

    status: str | None = None
    agent: str | None = None
    thread_id: str | None = None
    created_after: datetime | None = None
    created_before: datetime | None = None
    before: tuple[datetime, RunId] | None = None


_LISTED: tuple[Any, ...] = (
    col(Run.run_id), col(Run.agent), col(Run.thread_id), col(Run.status), col(Run.error), col(Run.metadata_),
    col(Run.last_seq), col(Run.attempt), col(Run.cancel_requested_at).is_not(None).label("cancel_requested"),
    col(Run.created_at), col(Run.started_at), col(Run.finished_at), col(Run.deadline_at),
)  # fmt: skip


async def list_runs(connection: Connection, tenant_id: TenantId, wanted: ListFilter, limit: int) -> list[Row]:
    """Newest first, without input and output. By run_tenant_created_idx or run_tenant_thread_idx, backwards."""
    statement = (
        select(*_LISTED)
        .where(*_conditions(tenant_id, wanted))
        .order_by(col(Run.created_at).desc(), col(Run.run_id).desc())
        .limit(limit)
    )
    return await fetch(connection, statement)


def _conditions(tenant_id: TenantId, wanted: ListFilter) -> list[Any]:
    conditions: list[Any] = [col(Run.tenant_id) == tenant_id, col(Run.deleted_at).is_(None)]
    if wanted.status is not None:
        conditions.append(col(Run.status) == wanted.status)
    if wanted.agent is not None:
        conditions.append(col(Run.agent) == wanted.agent)
    if wanted.thread_id is not None:
        conditions.append(col(Run.thread_id) == wanted.thread_id)
    if wanted.created_after is not None:
        conditions.append(col(Run.created_at) > wanted.created_after)
    if wanted.created_before is not None:
        conditions.append(col(Run.created_at) < wanted.created_before)
    if wanted.before is not None:
        created_at, run_id = wanted.before
        older = and_(col(Run.created_at) == created_at, col(Run.run_id) < run_id)
        conditions.append(or_(col(Run.created_at) < created_at, older))
    return conditions
