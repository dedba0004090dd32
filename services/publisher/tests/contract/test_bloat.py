"""Two hundred thousand rows hold up no fetch: neither what was published and deleted, and no vacuum has taken away yet, nor
what came since the last time that anything was planned."""

import json
from collections.abc import AsyncGenerator

import pytest

from juinie_publisher.store.outbox import BY_INDEX, FETCH, FETCH_OLDEST, OutboxStore, WindowLimits
from juinie_shared.db.plans import ONE_PLAN
from juinie_shared.db.pool import Connection, Pool, PoolLimits, open_pool
from juinie_shared.domain.ids import shard_of
from juinie_testkit.seed import Seed
from juinie_testkit.waits import eventually

ROWS = 200_000
SHARDS = list(range(64))
LIMITS = WindowLimits()
OF_ALL = (LIMITS.rows, LIMITS.bytes, LIMITS.records)
FETCHES = {
    "by shard": (FETCH, *OF_ALL, SHARDS, LIMITS.rows_a_shard, list[str]()),
    "oldest": (FETCH_OLDEST, *OF_ALL),
}
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


async def pages_of_a_fetch(connection: Connection, way: str) -> int:
    statement, *asked = FETCHES[way]
    plan = await connection.fetchval(f"EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) {statement}", *asked)
    top = json.loads(plan)[0]["Plan"]
    return top["Shared Hit Blocks"] + top["Shared Read Blocks"]


async def test_rows_that_were_published_are_stepped_over_once_and_then_forgotten(bloated: Pool):
    """The first fetch after the log of the deletes is on the disk, and after the last that began before them, marks what is
    dead in the index; from then on a fetch reads a few pages a shard.
    """
    run_id = await Seed(bloated).run("a")
    async with bloated.connection() as connection:

        async def is_forgotten() -> bool:
            return all([await pages_of_a_fetch(connection, way) < 64 * 30 for way in FETCHES])

        await eventually(is_forgotten, 30, "a fetch of a few pages a shard")
    store = OutboxStore(bloated)
    for window in (await store.fetch(SHARDS, LIMITS), await store.fetch_oldest(LIMITS)):
        assert [(row.run_id, row.shard) for row in window.rows] == [(run_id, shard_of(run_id))]


ROWS_READ = """
    SELECT coalesce(sum(seq_tup_read), 0)::int + coalesce(sum(idx_tup_fetch), 0)::int AS rows
    FROM pg_stat_xact_user_tables WHERE relname = 'outbox'
"""


BEFORE = {
    "empty": "VACUUM ANALYZE outbox",
    "never seen": "SELECT FROM outbox",
    "few rows of one shard": f"{FILL.replace('$1', '5').replace('$2', '1')}; ANALYZE outbox",
    "long, and empty since": f"{FILL.replace('$1', '20000').replace('$2', '64')}; ANALYZE outbox; DELETE FROM outbox",
}
"""What the outbox was like when a fetch was planned for good."""
MOST_READ = {"by shard": 64 * LIMITS.rows_a_shard, "oldest": LIMITS.rows + 1}


@pytest.mark.parametrize("counted", [False, True], ids=["since the last ANALYZE", "before it"])
@pytest.mark.parametrize("shards", [1, 10, 64])
@pytest.mark.parametrize("rows", [1_000, 20_000, ROWS])
@pytest.mark.parametrize("way", FETCHES)
async def test_rows_that_wait_are_not_all_read(
    database_url: str, way: str, rows: int, shards: int, counted: bool
):
    """As when Kafka goes away: nothing has told Postgres yet that the outbox is long, or a little longer than a fetch; or something
    has, while few runs were active.
    """
    await _is_read_in_part(database_url, BEFORE["empty"], way, rows, shards, counted)


@pytest.mark.parametrize("before", BEFORE.values(), ids=BEFORE)
@pytest.mark.parametrize("way", FETCHES)
async def test_plan_is_as_good_whenever_it_was_made(database_url: str, way: str, before: str):
    await _is_read_in_part(database_url, before, way, 20_000, 64, counted=False)


async def test_runs_that_are_left_out_are_looked_up_by_hash(database_url: str):
    """There may be as many of them as wait for a partition that is away, and as many rows to pass over."""
    pool = await open_pool(database_url, "test", PATIENT, **ONE_PLAN)
    async with pool.connection() as connection:
        await connection.execute(f"PREPARE by_shard AS {FETCH}")
        rows = await connection.fetch("EXPLAIN EXECUTE by_shard (2000, 1, 1, '{1}', 64, '{}')")
    await pool.close()
    assert "hashed SubPlan" in "\n".join(row[0] for row in rows)


async def _is_read_in_part(
    database_url: str, before: str, way: str, rows: int, shards: int, counted: bool
) -> None:
    pool = await open_pool(database_url, "test", PATIENT, **ONE_PLAN)
    async with pool.connection() as connection:
        await connection.execute("ALTER TABLE outbox SET (autovacuum_enabled = off)")
        for statement in before.split("; "):
            await connection.execute(statement)
        await connection.fetch(*FETCHES[way])  # planned here, and not again but after an ANALYZE
        await connection.execute("DELETE FROM outbox")
        await connection.execute(FILL, rows, shards)
        if counted:
            await connection.execute("ANALYZE outbox")
        async with connection.transaction():
            before_it = await connection.fetchval(ROWS_READ)
            assert await connection.fetch(*FETCHES[way])
            assert await connection.fetchval(ROWS_READ) - before_it <= MOST_READ[way]
    await pool.close()
