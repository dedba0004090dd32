"""Leases: given with a run that waits for a worker, renewed by their holder. The sweeper alone takes them away."""

from juinie_api.store.runs import LEASE_COLUMNS, RUN_COLUMNS

_CLAIMABLE = """
    run.tenant_id = {tenant} AND run.agent = wanted.agent AND run.status = 'pending'
    AND run.deleted_at IS NULL AND run.deadline_at > clock_timestamp()
"""

# The oldest run that waits for one of these agents, and all that starting it means, or nothing. `agents` looks at the
# oldest run of each agent and locks none; `picked` goes through them in that order, one agent and one row after the
# other, and ends at the first row lock that nobody else holds: so exactly one row is locked, and workers that come
# together never wait for each other. Having the lock it sees the row as the last holder left it; one that is pending
# no more is passed over. Both read run_pending_idx from its oldest end.
#
# $1 tenant, $2 agents · $3 $4 worker, the same as JSON · $5 seconds of the lease · $6 traceparent
CLAIM = f"""
    WITH agents AS MATERIALIZED (
        SELECT wanted.agent FROM unnest($2::text[]) AS wanted (agent)
        CROSS JOIN LATERAL (
            SELECT run.created_at, run.run_id FROM run WHERE {_CLAIMABLE.format(tenant="$1::uuid")}
            ORDER BY run.created_at, run.run_id LIMIT 1
        ) AS oldest
        ORDER BY oldest.created_at, oldest.run_id
    ), picked AS MATERIALIZED (
        SELECT first.* FROM agents AS wanted
        CROSS JOIN LATERAL (
            SELECT run.run_id, run.last_seq, run.attempt FROM run WHERE {_CLAIMABLE.format(tenant="$1")}
            ORDER BY run.created_at, run.run_id LIMIT 1
            FOR NO KEY UPDATE SKIP LOCKED
        ) AS first
        LIMIT 1
    ), clock AS MATERIALIZED (
        SELECT now, now + make_interval(secs => $5::int) AS lease_expires_at
        FROM (SELECT clock_timestamp() AS now FROM picked) AS moment
    ), taken AS (
        UPDATE run SET
            status = 'running',
            last_seq = picked.last_seq + 1,
            attempt = picked.attempt + 1,
            started_at = coalesce(run.started_at, now),
            lease_token = gen_random_uuid(),
            lease_worker_id = $3::text,
            lease_seconds = $5,
            lease_expires_at = clock.lease_expires_at,
            last_event_at = now,
            due_at = least(run.due_at, clock.lease_expires_at)
        FROM picked, clock WHERE run.run_id = picked.run_id
        RETURNING {RUN_COLUMNS}, {LEASE_COLUMNS}, run.shard, now,
                  '{{"attempt":' || run.attempt || ',"worker_id":' || $4::text || '}}' AS started
    ), event AS (
        INSERT INTO run_event (run_id, seq, type, data, occurred_at)
        SELECT run_id, last_seq, 'run.started', started, now FROM taken
    ), row AS (
        INSERT INTO outbox (shard, run_id, first_seq, last_seq, bytes, traceparent)
        SELECT shard, run_id, last_seq, last_seq, octet_length(started), $6::text FROM taken
    )
    SELECT * FROM taken
"""  # noqa: S608 - made of constants

# For which of these agents a run waits, as one answer for everybody who waits for one. No lock. The order is that of
# run_pending_idx: without one, run_open_idx looks as good where runs are thought to wait, and all runs that are open are read where
# none does.
#
# $1 $2 tenants and agents, pairwise
FIND_PENDING = f"""
    SELECT wanted.tenant_id, wanted.agent FROM unnest($1::uuid[], $2::text[]) AS wanted (tenant_id, agent)
    CROSS JOIN LATERAL (
        SELECT FROM run WHERE {_CLAIMABLE.format(tenant="wanted.tenant_id")}
        ORDER BY run.created_at, run.run_id LIMIT 1
    ) AS pending
"""  # noqa: S608 - made of constants

# Ends a lease that nobody has been told of. The attempt stays used: `run.started` has told of it. By run_pkey.
#
# $1 run, $2 lease
GIVE_BACK = """
    UPDATE run SET lease_expires_at = now, due_at = least(due_at, now) FROM (SELECT clock_timestamp() AS now) AS moment
    WHERE run_id = $1 AND lease_token = $2
"""

# Under the run's row lock, and by nothing but the token: a lease that is past its time and still in the row is its
# holder's. `due_at` only moves closer, for a shorter lease; ordinarily no index is touched.
#
# $1 run, $2 tenant, $3 lease · $4 seconds of the lease from now on, NULL: as before
HEARTBEAT = """
    WITH locked AS MATERIALIZED (
        SELECT run_id, lease_token IS NOT DISTINCT FROM $3::uuid AS held, coalesce($4::int, lease_seconds) AS seconds
        FROM run WHERE run_id = $1::uuid AND tenant_id = $2::uuid AND deleted_at IS NULL
        FOR NO KEY UPDATE
    ), clock AS MATERIALIZED (
        SELECT clock_timestamp() + make_interval(secs => seconds) AS lease_expires_at FROM locked
    ), renewed AS (
        UPDATE run SET
            lease_seconds = locked.seconds,
            lease_expires_at = clock.lease_expires_at,
            due_at = least(run.due_at, clock.lease_expires_at)
        FROM locked, clock WHERE run.run_id = locked.run_id AND locked.held
        RETURNING run.lease_expires_at, run.cancel_requested_at IS NOT NULL AS cancel_requested
    )
    SELECT locked.held, renewed.lease_expires_at, renewed.cancel_requested FROM locked LEFT JOIN renewed ON true
"""
