"""What the version with schema 0001 says to the database, word for word: it has to work on every later schema.

Frozen: never changed along with the services. Services refuse a schema older than their own, so while a database is
upgraded it is the version before that serves, and these statements stand in for it.
"""

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
"""$1 run, $2 tenant, $3 shard, $4 agent, $5 thread · $6 input, $7 metadata, $8 fingerprint · $9 idle seconds, $10 seconds to the
deadline · $11 data of `run.created`, $12 traceparent, $13 key."""

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
"""$1 run, $2 tenant, $3 lease · $4 may start the run · $5 $6 $7 types, data and times of the events · $8 $9 $10 status,
output and error of the end · $11 asks to cancel · $12 bytes, $13 traceparent · $14 $15 $16 key, route, fingerprint."""

READ_HEAD = """
    SELECT last_seq, retained_from_seq, status NOT IN ('pending', 'running') AS finished
    FROM run WHERE run_id = $1 AND tenant_id = $2 AND deleted_at IS NULL
"""
"""Where a run stands: $1 run, $2 tenant."""

READ_EVENTS = """
    SELECT e.seq, '{"seq":' || e.seq || ',"type":"' || e.type || '","time":"' || to_char(e.occurred_at AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"') || '","data":' || e.data || '}' AS json
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
"""
"""A page: $1 run, $2 after this seq, $3 up to this one, $4 types, $5 events and $6 bytes at most."""

FETCH = """
    WITH due AS MATERIALIZED (
        SELECT o.*, count(*) OVER () AS due,
               row_number() OVER (ORDER BY o.id) AS place, sum(o.bytes) OVER (ORDER BY o.id) AS bytes_so_far
        FROM (
            SELECT o.* FROM unnest($1::smallint[]) AS s (shard)
            CROSS JOIN LATERAL (SELECT * FROM outbox WHERE outbox.shard = s.shard ORDER BY id LIMIT $2) AS o
            ORDER BY o.id LIMIT $3::integer + 1
        ) AS o
    )
    SELECT d.id, d.shard, d.run_id, d.first_seq, d.last_seq, d.traceparent, d.due,
           extract(epoch FROM clock_timestamp() - d.created_at)::float8 AS age_seconds,
           (SELECT tenant_id FROM run WHERE run.run_id = d.run_id) AS tenant_id,
           events.*
    FROM due AS d
    CROSS JOIN LATERAL (
        SELECT array_agg(seq) AS seqs, array_agg(type) AS types, array_agg(time) AS times, array_agg(json) AS jsons
        FROM (
            SELECT e.seq, e.type, to_char(e.occurred_at AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"') AS time, '{"seq":' || e.seq || ',"type":"' || e.type || '","time":"' || to_char(e.occurred_at AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"') || '","data":' || e.data || '}' AS json
            FROM run_event AS e
            WHERE e.run_id = d.run_id AND e.seq BETWEEN d.first_seq AND d.last_seq
            ORDER BY e.seq
        ) AS ordered
    ) AS events
    WHERE d.place = 1 OR (d.place <= $3 AND d.bytes_so_far <= $4)
    ORDER BY d.id
"""
"""The relay's window: $1 shards, $2 rows a shard, $3 rows and $4 bytes at most."""

DELETE = """
    WITH relaxed AS MATERIALIZED (SELECT set_config('synchronous_commit', 'off', true))
    DELETE FROM outbox USING relaxed WHERE id = ANY($1::bigint[])
"""
"""Outbox rows $1, which Kafka has."""
