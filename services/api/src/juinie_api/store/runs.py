"""Runs: made, read, listed, deleted."""

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from juinie_shared.db.pool import Connection, Row
from juinie_shared.domain.ids import RunId, TenantId

RUN_COLUMNS = """
    run.run_id, run.agent, run.thread_id, run.status, run.input, run.output, run.error, run.metadata, run.last_seq,
    run.attempt, run.cancel_requested_at IS NOT NULL AS cancel_requested, run.created_at, run.started_at,
    run.finished_at, run.deadline_at
"""
"""What a client sees of a run."""

LEASE_COLUMNS = "run.lease_token, run.lease_expires_at"
"""What its holder sees besides."""

RUN_FROM = f"SELECT {RUN_COLUMNS} FROM run "  # noqa: S608 - made of constants

# The run, its first event, its outbox row and its key: all or nothing. Counts on two unique indexes, never on
# ON CONFLICT: run_pkey (the id is free), create_key_pkey (the key is new; a twin in flight is waited for); and looks
# for a tombstone (the id was never used by a run that is deleted: one that is being deleted now keeps its row for longer than this
# takes). One that is claimed at birth (`claims` is 1) is
# running from the start, with `run.started` as its second event.
#
# $1 to $7 run, tenant, shard, agent, thread, input, metadata · $8 fingerprint · $9 $10 idle and whole timeout · $11 data
# of run.created, $12 traceparent, $13 key · $14 $15 $16 worker, the same as JSON, seconds of its lease ·
# $17 key whose unfinished runs are counted, or NULL
CREATE = """
    WITH clock AS MATERIALIZED (
        SELECT now, claims, now + make_interval(secs => $10::float8) AS deadline_at,
               now + make_interval(secs => $16::int) AS lease_expires_at
        FROM (SELECT clock_timestamp() AS now, ($14::text IS NOT NULL)::int AS claims) AS moment
    ), made AS (
        INSERT INTO run (run_id, tenant_id, shard, agent, thread_id, input, metadata, last_seq, fingerprint,
                         idle_timeout_seconds, deadline_at, due_at, created_at, last_event_at,
                         status, attempt, started_at,
                         lease_token, lease_worker_id, lease_seconds, lease_expires_at, counted_key_id)
        SELECT $1::uuid, $2::uuid, $3::smallint, $4::text, $5::text, $6::text, $7::text, 1 + claims, $8::bytea,
               $9::int, deadline_at, least(deadline_at, lease_expires_at), now, now,
               CASE claims WHEN 1 THEN 'running' ELSE 'pending' END, claims, CASE claims WHEN 1 THEN now END,
               CASE claims WHEN 1 THEN gen_random_uuid() END, $14, $16, lease_expires_at, $17::uuid
        FROM clock WHERE NOT EXISTS (SELECT FROM run_tombstone WHERE run_id = $1)
        RETURNING run_id, tenant_id, shard, created_at, last_seq
    ), told (seq, type, data) AS (
        SELECT 1, 'run.created', $11::text
        UNION ALL
        SELECT 2, 'run.started', '{"attempt":1,"worker_id":' || $15::text || '}' FROM clock WHERE claims = 1
    ), event AS (
        INSERT INTO run_event (run_id, seq, type, data, occurred_at)
        SELECT run_id, seq, type, data, created_at FROM made, told
    ), row AS (
        INSERT INTO outbox (shard, run_id, first_seq, last_seq, bytes, traceparent)
        SELECT shard, run_id, 1, last_seq, (SELECT sum(octet_length(data)) FROM told), $12::text FROM made
    ), remembered AS (
        INSERT INTO create_key (tenant_id, key, fingerprint, run_id)
        SELECT tenant_id, $13::text, $8, run_id FROM made WHERE $13 IS NOT NULL
    )
    SELECT run_id FROM made
"""

# By run_open_idx, and no further than the limit.
COUNT_ACTIVE = """
    SELECT count(*) FROM (
        SELECT FROM run WHERE tenant_id = $1 AND status IN ('pending', 'running') LIMIT $2::bigint
    ) AS active
"""

# By run_open_of_key_idx, likewise.
COUNT_ACTIVE_OF_KEY = """
    SELECT count(*) FROM (
        SELECT FROM run WHERE counted_key_id = $1 AND status IN ('pending', 'running') LIMIT $2::bigint
    ) AS active
"""

# By create_key_pkey.
FIND_CREATE_KEY = "SELECT run_id, fingerprint FROM create_key WHERE tenant_id = $1 AND key = $2"

# By run_pkey.
FIND_CREATED = "SELECT fingerprint FROM run WHERE run_id = $1 AND tenant_id = $2 AND deleted_at IS NULL"

# Takes the run's row lock for the rest of the transaction. By run_pkey.
LOCK_RUN = RUN_FROM + "WHERE run_id = $1 AND tenant_id = $2 AND deleted_at IS NULL FOR NO KEY UPDATE"

# By run_pkey.
READ_RUN = RUN_FROM + "WHERE run_id = $1 AND tenant_id = $2 AND deleted_at IS NULL"

# By run_pkey. The lease is for its holder's eyes: what shows a Run to others reads READ_RUN.
READ_HELD_RUN = f"""
    SELECT {RUN_COLUMNS}, {LEASE_COLUMNS} FROM run WHERE run_id = $1 AND tenant_id = $2 AND deleted_at IS NULL
"""  # noqa: S608 - made of constants

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
        ON CONFLICT (run_id) DO NOTHING
    )
    SELECT finished FROM locked
"""

# By run_tenant_thread_idx, backwards. CASE keeps the planner from run_open_idx, where it would read all open runs of the tenant.
ACTIVE_RUN = (
    RUN_FROM
    + """
    WHERE tenant_id = $1 AND thread_id = $2 AND CASE WHEN deleted_at IS NULL THEN status IN ('pending', 'running') END
    ORDER BY created_at DESC, run_id DESC LIMIT 1
"""
)


@dataclass(frozen=True, slots=True)
class ListFilter:
    """Which runs a list holds; `before` is the (created_at, run_id) of the last one on the page before."""

    status: str | None = None
    agent: str | None = None
    thread_id: str | None = None
    created_after: datetime | None = None
    created_before: datetime | None = None
    before: tuple[datetime, RunId] | None = None


# By run_tenant_created_idx or run_tenant_thread_idx, backwards. What is asked for besides the tenant comes in between.
# `bytes_before` cuts a page of huge runs short: lengths are known without reading the values themselves. At least one run
# always fits; `found` counts those that were left out, too.
LIST = (
    """
    SELECT * FROM (
        SELECT *, count(*) OVER () AS found,
               sum(bytes) OVER (ORDER BY created_at DESC, run_id DESC) - bytes AS bytes_before
        FROM (
            SELECT run_id, agent, thread_id, status, error, metadata, last_seq, attempt,
                   cancel_requested_at IS NOT NULL AS cancel_requested, created_at, started_at, finished_at, deadline_at,
                   coalesce(octet_length(error), 0) + octet_length(metadata) AS bytes
            FROM run WHERE """,
    """
            ORDER BY created_at DESC, run_id DESC LIMIT """,
    """
        ) AS page
    ) AS counted
    WHERE bytes_before = 0 OR bytes_before < """,
    " ORDER BY created_at DESC, run_id DESC",
)


@dataclass(frozen=True, slots=True)
class PageSize:
    """How many runs, and how many bytes of what clients wrote into them."""

    limit: int
    max_bytes: int


async def list_runs(
    connection: Connection, tenant_id: TenantId, wanted: ListFilter, size: PageSize
) -> tuple[list[Row], bool]:
    """Newest first, without input and output; and whether there are older ones. One run more than asked for tells."""
    conditions, values = _conditions(tenant_id, wanted)
    select, newest_first, within, in_order = LIST
    most_runs, most_bytes = f"${len(values) + 1}::bigint", f"${len(values) + 2}::bigint"
    statement = f"{select}{' AND '.join(conditions)}{newest_first}{most_runs}{within}{most_bytes}{in_order}"
    rows = await connection.fetch(statement, *values, size.limit + 1, size.max_bytes)
    listed = rows[: size.limit]
    return listed, bool(listed) and listed[0]["found"] > len(listed)


def _conditions(tenant_id: TenantId, wanted: ListFilter) -> tuple[list[str], list[Any]]:
    """What is asked for and nothing else, so that each question is planned for itself."""
    asked: list[tuple[str, Any]] = [
        ("status = ${}", wanted.status),
        ("agent = ${}", wanted.agent),
        ("thread_id = ${}", wanted.thread_id),
        ("created_at > ${}", wanted.created_after),
        ("created_at < ${}", wanted.created_before),
    ]
    conditions, values = ["tenant_id = $1", "deleted_at IS NULL"], list[Any]([tenant_id])
    for condition, value in asked:
        if value is not None:
            values.append(value)
            conditions.append(condition.format(len(values)))
    if wanted.before is not None:
        values += wanted.before
        conditions.append(f"(created_at, run_id) < (${len(values) - 1}, ${len(values)})")
    return conditions, values
