"""Two hundred thousand rows hold up no fetch: neither what was published and deleted, and no vacuum has taken away yet, nor
what came since the last time that anything was planned."""

import json
from collections.abc import AsyncGenerator

import pytest

from juinie_publisher.store.outbox import BY_INDEX, FETCH, OutboxStore, WindowLimits
from juinie_shared.db.pool import Connection, Pool, PoolLimits, open_pool
from juinie_shared.domain.ids import shard_of
from juinie_testkit.seed import Seed
from juinie_testkit.waits import eventually

ROWS = 200_000
SHARDS = list(range(64))
LIMITS = WindowLimits()
PATIENT = PoolLimits(statement_seconds=120)

FILL = """
    INSERT INTO outbox (shard, run_id, first_seq, last_seq, bytes)
    SELECT n % $2, gen_random_uuid(), 1, 1, 100 FROM generate_series(1, $1) AS n
"""
A_BATCH = "SELECT id FROM outbox ORDER BY id LIMIT 10000"


@pytest.fixture
async def bloated(database_url: str) -> AsyncGenerator[Pool]:
    """All of it deleted, as the relay deletes what Kafka has, batch by batch."""
    pool = await open_pool(database_url, "test", PATIENT, **BY_INDEX)
    store = OutboxStore(pool)
    async with pool.connection() as connection:
        await connection.execute("ALTER TABLE outbox SET (autovacuum_enabled = off)")
        await connection.execute(FILL, ROWS, 64)
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
    """The first fetch after the log of the deletes is on the disk, and after the last that began before them, marks what is
    dead in the index; from then on a fetch reads a few pages a shard.
    """
    run_id = await Seed(bloated).run("a")
    async with bloated.connection() as connection:

        async def is_forgotten() -> bool:
            return await pages_of_a_fetch(connection) < 64 * 30

        await eventually(is_forgotten, 30, "a fetch of a few pages a shard")
    window = await OutboxStore(bloated).fetch(SHARDS, LIMITS)

    assert [(row.run_id, row.shard) for row in window.rows] == [(run_id, shard_of(run_id))]


ROWS_READ = """
    SELECT coalesce(sum(seq_tup_read), 0)::int + coalesce(sum(idx_tup_fetch), 0)::int AS rows
    FROM pg_stat_xact_user_tables WHERE relname = 'outbox'
"""


@pytest.mark.parametrize("counted", [False, True], ids=["since the last ANALYZE", "before it"])
@pytest.mark.parametrize("shards", [1, 10, 64])
@pytest.mark.parametrize("rows", [1_000, 20_000, ROWS])
async def test_rows_that_wait_are_not_all_read(database_url: str, rows: int, shards: int, counted: bool):
    """As when Kafka goes away: nothing has told Postgres yet that the outbox is long, or a little longer than a fetch; or something
    has, while few runs were active.
    """
    pool = await open_pool(database_url, "test", PATIENT, **BY_INDEX)
    async with pool.connection() as connection:
        await connection.execute("ALTER TABLE outbox SET (autovacuum_enabled = off)")
        await connection.execute("VACUUM ANALYZE outbox")
        fetch = (FETCH, SHARDS, LIMITS.rows_a_shard, LIMITS.rows, LIMITS.bytes, LIMITS.records, list[str]())
        for _ in range(
            6
        ):  # from here on a prepared statement has one plan for good, unless it is told otherwise
            await connection.fetch(*fetch)
        await connection.execute(FILL, rows, shards)
        if counted:
            await connection.execute("ANALYZE outbox")
        async with connection.transaction():
            assert await connection.fetch(*fetch)
            assert await connection.fetchval(ROWS_READ) <= 64 * LIMITS.rows_a_shard
    await pool.close()
