"""Two hundred thousand rows that were published and deleted, and that no vacuum has taken away yet, are in nobody's way."""

import json
from collections.abc import AsyncGenerator

import pytest

from juinie_publisher.store.outbox import FETCH, OutboxStore, WindowLimits
from juinie_shared.db.pool import Connection, Pool, PoolLimits, open_pool
from juinie_shared.domain.ids import shard_of
from juinie_testkit.seed import Seed

ROWS = 200_000
SHARDS = list(range(64))
LIMITS = WindowLimits()
PATIENT = PoolLimits(statement_seconds=120)

FILL = """
    INSERT INTO outbox (shard, run_id, first_seq, last_seq, bytes)
    SELECT n % 64, gen_random_uuid(), 1, 1, 100 FROM generate_series(1, $1) AS n
"""
A_BATCH = "SELECT id FROM outbox ORDER BY id LIMIT 10000"


@pytest.fixture
async def bloated(database_url: str) -> AsyncGenerator[Pool]:
    """All of it deleted, as the relay deletes what Kafka has, batch by batch."""
    pool = await open_pool(database_url, "test", PATIENT)
    store = OutboxStore(pool)
    async with pool.connection() as connection:
        await connection.execute("ALTER TABLE outbox SET (autovacuum_enabled = off)")
        await connection.execute(FILL, ROWS)
    deleted = 0
    while ids := await _some_ids(pool):
        await store.delete(ids)
        deleted += len(ids)
    assert deleted == ROWS
    yield pool
    await pool.close()


async def _some_ids(pool: Pool) -> list[int]:
    async with pool.connection() as connection:
        return [row["id"] for row in await connection.fetch(A_BATCH)]


async def pages_of_a_fetch(connection: Connection) -> int:
    plan = await connection.fetchval(
        f"EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) {FETCH}",
        SHARDS,
        LIMITS.rows_a_shard,
        LIMITS.rows,
        LIMITS.bytes,
        LIMITS.records,
        [],
    )

    top = json.loads(plan)[0]["Plan"]
    return top["Shared Hit Blocks"] + top["Shared Read Blocks"]


async def test_rows_that_were_published_are_stepped_over_once_and_then_forgotten(bloated: Pool):
    """The first fetch marks what is dead in the index; from then on a fetch reads a few pages a shard."""
    run_id = await Seed(bloated).run("a")
    async with bloated.connection() as connection:
        await pages_of_a_fetch(connection)
        again = await pages_of_a_fetch(connection)
    window = await OutboxStore(bloated).fetch(SHARDS, LIMITS)

    assert [(row.run_id, row.shard) for row in window.rows] == [(run_id, shard_of(run_id))]
    assert again < 64 * 30
