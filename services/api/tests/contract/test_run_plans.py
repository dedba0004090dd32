"""What the api asks of a few runs costs what these cost, however many others there are, and whatever was counted."""

from uuid import UUID, uuid4

from juinie_api.store import outbox
from juinie_shared.db.plans import ALONG_INDEXES
from juinie_shared.db.pool import open_pool
from juinie_testkit.counts import RUNS_READ
from juinie_testkit.seed import Seed

RUNS = 20_000

# So many runs of a tenant, each with a thread of its own; of ten $3 are open.
FILL = """
    INSERT INTO run (run_id, tenant_id, shard, agent, thread_id, status, finished_at, last_seq, idle_timeout_seconds, deadline_at, fingerprint)
    SELECT gen_random_uuid(), $1, 0, 'agent', 'thread ' || n, CASE WHEN n % 10 < $3 THEN 'running' ELSE 'success' END,
           CASE WHEN n % 10 < $3 THEN NULL ELSE clock_timestamp() END, 1, 3600, clock_timestamp() + interval '1 day', ''
    FROM generate_series(1, $2::int) AS n
"""


async def test_republishing_a_run_reads_no_other_runs_of_its_tenant(database_url: str):
    pool = await open_pool(database_url, "test", **ALONG_INDEXES)
    seed = Seed(pool)
    tenant_id: UUID = (await seed.key()).tenant_id
    other: UUID = (await seed.key("b")).tenant_id
    async with pool.connection() as connection:
        await connection.execute("ALTER TABLE run SET (autovacuum_enabled = off)")
        await connection.execute(FILL, other, RUNS, 1)
        await connection.execute("ANALYZE run")
        await connection.execute(FILL, tenant_id, RUNS // 10, 10)
        async with connection.transaction():
            before = await connection.fetchval(RUNS_READ) or 0
            await connection.fetch(outbox.REPUBLISH, [uuid4()], [1], [10], tenant_id, None, 100, 100_000)
            assert (await connection.fetchval(RUNS_READ) or 0) - before == 0
    await pool.close()
