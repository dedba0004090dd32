"""The outbox as an administrator sees it: its depth, the switch that pauses the relay, dead letters, rows written again."""

from juinie_shared.contracts.names import DUTIES_CHANNEL

BY_INDEX_ALONE = "; ".join(
    f"SET LOCAL {name} = off" for name in ("enable_seqscan", "enable_bitmapscan", "enable_sort", "jit")
)
"""For DEPTH: a plan that was made while the outbox was short, or before statistics knew that it is long, would read all of
it, for each shard."""

_OF_SHARD = "shard BETWEEN duty.shard AND duty.shard"
"""No `=`: with that, the order of outbox_pkey would do too, which has a shard's rows anywhere."""

# All shards, each once, by duty_shard_key. Of a shard only the rows at its two ends are read, by outbox_shard_id_idx, however
# long Kafka has been away: beyond the first $1 their number is estimated, as if ids stood as close to each other to the end.
# A publisher whose lease has run out holds nothing. $1 rows of a shard that are counted, at least 2
DEPTH = f"""
    SELECT duty.shard,
           CASE WHEN counted.rows < $1::bigint THEN counted.rows
                ELSE 1 + (counted.rows - 1) * (tail.id - head.id) / (counted.last_id - head.id) END AS pending,
           coalesce(extract(epoch FROM clock_timestamp() - head.created_at), 0)::float8 AS oldest_age_seconds,
           publisher.name AS publisher
    FROM duty
    LEFT JOIN publisher ON publisher.publisher_id = duty.publisher_id AND duty.expires_at > clock_timestamp()
    LEFT JOIN LATERAL (
        SELECT id, created_at FROM outbox WHERE {_OF_SHARD} ORDER BY shard, id LIMIT 1
    ) AS head ON true
    LEFT JOIN LATERAL (
        SELECT id FROM outbox WHERE {_OF_SHARD} ORDER BY shard DESC, id DESC LIMIT 1
    ) AS tail ON true
    CROSS JOIN LATERAL (
        SELECT count(*) AS rows, max(id) AS last_id
        FROM (SELECT id FROM outbox WHERE {_OF_SHARD} ORDER BY shard, id LIMIT $1) AS first
    ) AS counted
    WHERE duty.shard IS NOT NULL
    ORDER BY duty.shard
"""  # noqa: S608 - made of constants

IS_PAUSED = "SELECT paused_at IS NOT NULL FROM relay_state"

PAUSE = "UPDATE relay_state SET paused_at = coalesce(paused_at, clock_timestamp())"

RESUME = "UPDATE relay_state SET paused_at = NULL"

# Publishers look every other second anyway.
WAKE_PUBLISHERS = f"NOTIFY {DUTIES_CHANNEL}"

# By dead_letter_tenant_id_idx, the newest first. $1 tenant, $2 before this id, $3 limit
DEAD_LETTERS = """
    SELECT id, run_id, first_seq, last_seq, reason, created_at FROM dead_letter
    WHERE tenant_id = $1 AND ($2::bigint IS NULL OR id < $2) ORDER BY id DESC LIMIT $3
"""

# One statement: at every moment the run has a dead letter or an outbox row, either of which keeps its events from being
# removed. Of two that come at once, one finds the row gone. By dead_letter_pkey and run_event_pkey.
REQUEUE = """
    WITH gone AS (DELETE FROM dead_letter WHERE id = $1 AND tenant_id = $2 RETURNING *),
    queued AS (
        INSERT INTO outbox (shard, run_id, first_seq, last_seq, bytes, traceparent)
        SELECT shard, run_id, first_seq, last_seq, (
            SELECT coalesce(sum(octet_length(data)), 0) FROM run_event
            WHERE run_event.run_id = gone.run_id AND seq BETWEEN gone.first_seq AND gone.last_seq
        ), traceparent FROM gone
    )
    SELECT id, run_id, first_seq, last_seq, reason, created_at FROM gone
"""

DISCARD = """
    DELETE FROM dead_letter WHERE id = $1 AND tenant_id = $2
    RETURNING id, run_id, first_seq, last_seq, reason, created_at
"""

# By run_pkey.
READ_SPAN = """
    SELECT run_id, retained_from_seq AS first_seq, last_seq FROM run
    WHERE run_id = $1 AND tenant_id = $2 AND deleted_at IS NULL
"""

# By run_tenant_created_idx, the oldest first. $1 tenant, $2 created after, $3 before; $4 $5 the last of the page before
READ_SPANS = """
    SELECT run_id, created_at, retained_from_seq AS first_seq, last_seq FROM run
    WHERE tenant_id = $1 AND created_at > $2 AND created_at < $3 AND deleted_at IS NULL
      AND (created_at, run_id) > ($4::timestamptz, $5::uuid)
    ORDER BY created_at, run_id LIMIT $6
"""

# Whether so many events wait to be sent, or so many bytes; none do while the relay is paused. Reads no more rows than that
# takes, in no order. $1 events, $2 bytes
IS_DEEP = """
    SELECT (SELECT paused_at IS NULL FROM relay_state)
           AND coalesce(sum(last_seq - first_seq + 1) >= $1::bigint OR sum(bytes) >= $2::bigint, false)
    FROM (SELECT first_seq, last_seq, bytes FROM outbox LIMIT $1) AS waiting
"""

# The events of some spans of seqs as outbox rows again, in seq order. KEY SHARE keeps a run from being removed in between
# and holds up no append, which locks the row FOR NO KEY UPDATE; nor can retention take anything from then on. What it took while its
# lock was waited for, this statement still sees among the events: only the run's row is read again then, and says from where on they
# are kept. No older row of an event can be sent later than these: it was committed with the event, so its
# id is lower. Reads only the events' lengths, which stand beside the data. By run_pkey and run_event_pkey: `coalesce` keeps the planner from
# reading all runs of the tenant.
# $1 $2 $3 runs, first and last seqs · $4 tenant, $5 traceparent · $6 events and $7 bytes that a row may have
REPUBLISH = """
    WITH span AS (
        SELECT run.run_id, run.shard, greatest(wanted.first_seq, run.retained_from_seq) AS first_seq, wanted.last_seq,
               wanted.place
        FROM unnest($1::uuid[], $2::bigint[], $3::bigint[])
            WITH ORDINALITY AS wanted (run_id, first_seq, last_seq, place)
        JOIN run ON run.run_id = wanted.run_id AND coalesce(run.tenant_id = $4, false) AND run.deleted_at IS NULL
        FOR KEY SHARE OF run
    ), event AS (
        SELECT span.place, span.shard, span.run_id, e.seq, octet_length(e.data) AS bytes,
               (row_number() OVER in_order - 1) / $6::integer AS by_count,
               (sum(octet_length(e.data)) OVER in_order - octet_length(e.data)) / $7::integer AS by_bytes
        FROM span
        JOIN run_event AS e ON e.run_id = span.run_id AND e.seq BETWEEN span.first_seq AND span.last_seq
        WINDOW in_order AS (PARTITION BY span.place ORDER BY e.seq)
    ), written AS (
        INSERT INTO outbox (shard, run_id, first_seq, last_seq, bytes, traceparent)
        SELECT shard, run_id, min(seq), max(seq), sum(bytes), $5 FROM event
        GROUP BY place, shard, run_id, by_count, by_bytes
        ORDER BY place, min(seq)
        RETURNING last_seq - first_seq + 1 AS records
    )
    SELECT coalesce(sum(records), 0)::bigint FROM written
"""
