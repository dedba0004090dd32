"""Runs with their events, written straight into the tables: many more than the api could write in the time."""

import hashlib
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

import asyncpg
from append import EVENT_BYTES
from world import World

from juinie_shared.domain.ids import RunId, new_run_id, shard_of

_EVENTS_AT_ONCE = 1_000_000

_RUNS = """
    INSERT INTO run (
        run_id, tenant_id, shard, agent, status, last_seq, attempt, idle_timeout_seconds, deadline_at, fingerprint,
        started_at, finished_at, due_at
    )
    SELECT run_id, $3, shard, 'agent', CASE WHEN $5 THEN 'running' ELSE 'success' END, $4, 1, 86400, $6, $7,
           clock_timestamp(), CASE WHEN NOT $5 THEN clock_timestamp() END, CASE WHEN $5 THEN $6::timestamptz END
    FROM unnest($1::uuid[], $2::smallint[]) AS r (run_id, shard)
"""

_EVENTS = """
    INSERT INTO run_event (run_id, seq, type, data)
    SELECT run_id, seq, 'TEXT_MESSAGE_CONTENT', $3
    FROM unnest($1::uuid[]) WITH ORDINALITY AS r (run_id, place) CROSS JOIN generate_series(1, $2::bigint) AS seq
    ORDER BY place, seq
"""


async def store(
    world: World, runs: int, events: int, *, running: bool = True, ids: Sequence[RunId] = ()
) -> Sequence[RunId]:
    """So many runs of so many events each, that are running or have ended. All of it is published, vacuumed and on the disk.
    `ids`: theirs, where it matters in which shards and partitions they lie."""
    run_ids = ids or [new_run_id() for _ in range(runs)]
    data = '"' + "x" * (EVENT_BYTES - 2) + '"'
    at_once = max(1, _EVENTS_AT_ONCE // max(1, events))
    until = datetime.now(UTC) + timedelta(days=1)
    connection = await asyncpg.connect(world.postgres.url)
    try:
        for start in range(0, runs, at_once):
            some = run_ids[start : start + at_once]
            shards, fingerprint = [shard_of(run_id) for run_id in some], hashlib.sha256().digest()
            await connection.execute(
                _RUNS, some, shards, world.key.tenant_id, events, running, until, fingerprint
            )
            await connection.execute(_EVENTS, some, events, data)
        await connection.execute("VACUUM ANALYZE run, run_event")
        await connection.execute("CHECKPOINT")
    finally:
        await connection.close()
    return run_ids
