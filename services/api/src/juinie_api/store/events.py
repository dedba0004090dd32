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
# output and error of the end · $11 asks to cancel · $12 bytes, $13 traceparent · $14 $15 $16 key, route, fingerprint ·
# $17 how many events the run may have, ever; NULL: any number. The end goes beyond it, so that a full run can end.
APPEND = """
    WITH locked AS MATERIALIZED (
        SELECT shard, status, last_seq, attempt,
               status IN ('pending', 'running') AS open,
               $3::uuid IS NULL OR lease_token IS NOT DISTINCT FROM $3 AS fenced,
               $8::text IS DISTINCT FROM 'success' OR status <> 'pending' OR attempt = 0 AS claimed,
               $17::bigint IS NULL OR $8 IS NOT NULL
                   OR last_seq + ($4::bool AND attempt = 0)::int + cardinality($5::text[]) <= $17 AS fits
        FROM run
        WHERE run_id = $1::uuid AND tenant_id = $2::uuid AND deleted_at IS NULL
        FOR NO KEY UPDATE
    ), turn AS (
        SELECT shard, status, last_seq AS before_seq, attempt,
               ($4::bool AND attempt = 0)::int AS starts
        FROM locked WHERE open AND fenced AND claimed AND fits
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
    SELECT locked.open, locked.fenced, locked.claimed, locked.fits,
           taken.before_seq + taken.starts + 1 AS first_seq, taken.last_seq,
           coalesce(taken.status, locked.status) AS status, taken.cancel_requested
    FROM locked LEFT JOIN taken ON true
"""

# As APPEND, for many appends to many runs, several of which may be of one run: they follow each other in the order in
# which they are given. Only what can be written at once and plainly is: an append to a run whose row somebody else holds,
# that has ended, is nearly full or is not there, with another lease, or with a key that was used before, is left out, and the
# caller asks for it alone. Rows are taken in one order and none is waited for, so no two statements can wait for each other.
# None is taken that is not its asker's: who names another tenant's run locks nothing.
#
# Each append: $1 run, $2 tenant, $3 lease, $4 may start the run, $5 how many events, $6 bytes, $7 traceparent, $8 $9 $10
# key, route, fingerprint ($3, and $8 to $10, are NULL where none of them has one), $11 the place of its first event (from 1)
# among all events, which follow each other as the appends do · all events: $12 their types with commas between, $13 their data
# with line feeds between, $14 an array of their times, or NULL where none of them has one · each append: $15 behind which seq
# of its run it is left out, or NULL; NULL where none of them has one. The driver asks of each item of an array, through two
# abstract classes, whether it is an array itself: that takes it longer than Postgres needs to split a text.
#
# By run_pkey and append_key_pkey, in sessions that have one plan for all (`ONE_PLAN`): to plan it for each append that comes alone takes Postgres as long as all else
# that it does for one; and it would plan each, since it takes one append for cheaper than the ten that it guesses where it does not know. So there is no other way to go: CASE keeps
# the planner from run_open_idx, where it would read all open runs, and OFFSET 0 from a hash of all keys. Both look good while
# the tables are empty.
APPEND_MANY = """
    WITH wanted AS MATERIALIZED (
        SELECT * FROM unnest(
            $1::uuid[], $2::uuid[], $3::uuid[], $4::bool[], $5::int[], $6::int[], $7::text[], $8::text[], $9::text[], $10::bytea[],
            $15::bigint[]
        ) WITH ORDINALITY AS w (
            run_id, tenant_id, lease, may_start, events, bytes, traceparent, key, route, fingerprint, top, place
        )
    ), locked AS MATERIALIZED (
        SELECT run_id, tenant_id, shard, status, last_seq, attempt, lease_token,
               cancel_requested_at IS NOT NULL AS cancel_requested
        FROM run
        WHERE run_id = ANY ($1::uuid[]) AND (run_id, tenant_id) IN (SELECT run_id, tenant_id FROM wanted)
          AND CASE WHEN deleted_at IS NULL THEN status IN ('pending', 'running') END
        ORDER BY run_id FOR NO KEY UPDATE SKIP LOCKED
    ), fit AS (
        SELECT wanted.*, shard, status, last_seq AS before_seq, cancel_requested,
               (may_start AND attempt = 0
                AND count(*) FILTER (WHERE may_start) OVER (PARTITION BY run_id ORDER BY place) = 1)::int AS starts
        FROM wanted JOIN locked USING (run_id, tenant_id)
        WHERE (lease IS NULL OR lease = lease_token)
          AND (top IS NULL OR last_seq <= top)
          AND (key IS NULL OR NOT EXISTS (
              SELECT FROM append_key AS used WHERE used.run_id = wanted.run_id AND used.key = wanted.key OFFSET 0))
    ), placed AS MATERIALIZED (
        SELECT *, before_seq + (sum(starts + events) OVER so_far)::bigint AS last_seq,
               CASE WHEN sum(starts) OVER so_far > 0 THEN 'running' ELSE status END AS status_then
        FROM fit WINDOW so_far AS (PARTITION BY run_id ORDER BY place)
    ), taken AS (
        UPDATE run SET
            last_seq = new.last_seq,
            attempt = run.attempt + new.starts,
            status = CASE new.starts WHEN 1 THEN 'running' ELSE run.status END,
            started_at = CASE new.starts WHEN 1 THEN clock_timestamp() ELSE run.started_at END,
            lease_expires_at = CASE WHEN new.leased
                THEN clock_timestamp() + make_interval(secs => run.lease_seconds) ELSE run.lease_expires_at END,
            last_event_at = clock_timestamp(),
            due_at = CASE new.starts WHEN 1
                THEN least(run.due_at, clock_timestamp() + make_interval(secs => run.idle_timeout_seconds))
                ELSE run.due_at END
        FROM (
            SELECT run_id, max(last_seq) AS last_seq, sum(starts)::int AS starts, bool_or(lease IS NOT NULL) AS leased
            FROM placed GROUP BY run_id
        ) AS new
        WHERE run.run_id = new.run_id
    ), events AS (
        INSERT INTO run_event (run_id, seq, type, data, occurred_at)
        SELECT run_id, last_seq - events, 'run.started', '{"attempt":1,"worker_id":null}', clock_timestamp()
        FROM placed WHERE starts = 1
        UNION ALL
        SELECT placed.run_id, placed.last_seq - placed.events + 1 + e.place - ($11::bigint[])[placed.place], e.type, e.data,
               coalesce(e.time::timestamptz, clock_timestamp())
        FROM unnest(string_to_array($12::text, ','), string_to_array($13::text, chr(10)), $14::text[])
            WITH ORDINALITY AS e (type, data, time, place)
        JOIN placed ON placed.place = width_bucket(e.place, $11::bigint[])
    ), row AS (
        INSERT INTO outbox (shard, run_id, first_seq, last_seq, bytes, traceparent)
        SELECT shard, run_id, last_seq - events - starts + 1, last_seq, bytes, traceparent FROM placed
        ORDER BY run_id, place
    ), remembered AS (
        INSERT INTO append_key (run_id, key, route, fingerprint, first_seq, last_seq, status, cancel_requested)
        SELECT run_id, key, route, fingerprint, last_seq - events + 1, last_seq, status_then, cancel_requested
        FROM placed WHERE key IS NOT NULL
    )
    SELECT place, last_seq - events + 1 AS first_seq, last_seq, status_then AS status, cancel_requested FROM placed
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
