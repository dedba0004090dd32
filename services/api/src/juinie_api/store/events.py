"""Run events: appended under the run's row lock, and read in pages."""

from juinie_shared.db.event_json import EVENT_JSON

# The load-bearing one. `locked` takes the run's row lock and, having waited for it, sees the row as the winner left
# it; all else is computed from there. Seqs and the outbox id are both taken under that lock and held to the commit,
# so within a run: id order = seq order = commit order. A key that is there already fails the whole statement
# (append_key_pkey), without ON CONFLICT: that would leave last_seq ahead of the events. Times come as text: as values,
# asyncpg takes the first and the last moment of the calendar for infinity, which has no JSON. `due_at` only ever moves
# closer here: an ordinary append leaves it alone, so that no index is touched; the sweeper finds the later moment.
#
# $1 run, $2 tenant, $3 lease · $4 may start the run · $5 $6 $7 types, data and times of the events · $8 $9 $10 status,
# output and error of the end · $11 asks to cancel · $12 bytes, $13 traceparent · $14 $15 $16 key, route, fingerprint
APPEND = """
    WITH locked AS MATERIALIZED (
        SELECT shard, status, last_seq, attempt,
               status IN ('pending', 'running') AS open,
               $3::uuid IS NULL OR lease_token IS NOT DISTINCT FROM $3 AS fenced,
               $8::text IS DISTINCT FROM 'success' OR status <> 'pending' OR attempt = 0 AS claimed
        FROM run
        WHERE run_id = $1::uuid AND tenant_id = $2::uuid AND deleted_at IS NULL
        FOR NO KEY UPDATE
    ), turn AS (
        SELECT shard, status, last_seq AS before_seq, attempt,
               ($4::bool AND attempt = 0)::int AS starts
        FROM locked WHERE open AND fenced AND claimed
    ), taken AS (
        UPDATE run SET
            last_seq = turn.before_seq + turn.starts + cardinality($5::text[]),
            attempt = turn.attempt + turn.starts,
            status = coalesce($8, CASE turn.starts WHEN 1 THEN 'running' ELSE turn.status END),
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
            last_event_at = clock_timestamp(),
            due_at = CASE
                WHEN $8 IS NOT NULL THEN NULL
                WHEN $11 THEN least(run.due_at, clock_timestamp())
                WHEN turn.starts = 1
                    THEN least(run.due_at, clock_timestamp() + make_interval(secs => run.idle_timeout_seconds))
                ELSE run.due_at END
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
    SELECT locked.open, locked.fenced, locked.claimed, taken.before_seq + taken.starts + 1 AS first_seq, taken.last_seq,
           coalesce(taken.status, locked.status) AS status, taken.cancel_requested
    FROM locked LEFT JOIN taken ON true
"""

# By append_key_pkey.
FIND_APPEND_KEY = """
    SELECT route, fingerprint, first_seq, last_seq, status, cancel_requested
    FROM append_key WHERE run_id = $1 AND key = $2
"""

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
