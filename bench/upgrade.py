"""How long requests wait while a large `run` table is upgraded from schema 0001 to the newest.

`.venv/bin/pytest -s bench/upgrade.py`: JUINIE_BENCH_RUNS runs (300,000), a tenth of them open; four writers and a
relay of the version with schema 0001 go on. Statements may take 120 s here, so that a wait is measured and not refused.
"""

import asyncio
import os
import time

import pytest

from juinie_shared.db.migrate import migrate
from juinie_shared.db.pool import PoolLimits, open_pool
from juinie_testkit.old_version import old_version
from juinie_testkit.waits import eventually

RUNS = int(os.environ.get("JUINIE_BENCH_RUNS", "300000"))
FILL = """
    INSERT INTO run (run_id, tenant_id, shard, agent, status, last_seq, fingerprint, idle_timeout_seconds, deadline_at,
                     finished_at)
    SELECT gen_random_uuid(), $1, n % 64, 'agent-' || n % 50, CASE n % 10 WHEN 0 THEN 'pending' ELSE 'success' END, 1,
           decode(md5(n::text), 'hex'), 3600, clock_timestamp() + interval '1 day',
           CASE n % 10 WHEN 0 THEN NULL ELSE clock_timestamp() END
    FROM generate_series(1, $2::int) AS n
"""
LONG = PoolLimits(acquire_seconds=120, statement_seconds=120, lock_seconds=120)


@pytest.mark.timeout(570)
async def test_longest_wait_while_a_large_table_is_upgraded(empty_database_url: str) -> None:
    await migrate(empty_database_url, "0001")
    pool = await open_pool(empty_database_url, "bench", LONG)
    old, stopping = await old_version(pool), asyncio.Event()
    async with pool.connection() as connection:
        await connection.execute(FILL, old.tenant_id, RUNS)
    serving = asyncio.create_task(old.serve(stopping))
    await eventually(lambda: old.requests > 500, 60, "traffic flows")
    calm = dict(old.longest)
    old.longest.clear()
    began = time.monotonic()
    await migrate(empty_database_url, wait_seconds=300)
    took = time.monotonic() - began
    stopping.set()
    await serving
    await pool.close()
    print(f"\n{RUNS} runs, upgrade {took:.1f} s; longest waits: {_told(old.longest)}; before: {_told(calm)}")
    assert old.failures == []


def _told(longest: dict[str, float]) -> str:
    return ", ".join(f"{kind} {seconds:.2f} s" for kind, seconds in sorted(longest.items()))
