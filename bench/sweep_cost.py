"""What it costs to sweep 10,000 due runs: in batches, against one at a time.

.venv/bin/pytest -s bench/sweep_cost.py
"""

import time

import pytest
import structlog
from opentelemetry.sdk.trace import TracerProvider
from prometheus_client import CollectorRegistry

from juinie_publisher.core import sweep
from juinie_publisher.core.judge import Rules
from juinie_publisher.core.sweep import Sweeper
from juinie_publisher.store.due_runs import DueRunStore
from juinie_publisher.telemetry import Telemetry
from juinie_shared.db.pool import Pool
from juinie_testkit.seed import Seed

pytestmark = pytest.mark.timeout(550)

RUNS = 10_000

COPY = """
    INSERT INTO run (run_id, tenant_id, shard, agent, status, last_seq, attempt, idle_timeout_seconds, deadline_at,
        fingerprint, due_at, last_event_at, lease_token, lease_worker_id, lease_seconds, lease_expires_at)
    SELECT gen_random_uuid(), tenant_id, n % 64, agent, 'running', last_seq, 1, 3600, deadline_at, fingerprint,
        clock_timestamp(), clock_timestamp(), $3::uuid, $4::text, $5::int, $6::timestamptz
    FROM run, generate_series(1, $2) AS n WHERE run_id = $1
"""


@pytest.mark.parametrize("what", ["idle", "lease expired", "nothing to do yet"])
@pytest.mark.parametrize("batch", [100, 1])
async def test_cost(pool: Pool, what: str, batch: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sweep, "BATCH", batch)
    runs = RUNS if batch > 1 else RUNS // 10
    await due_runs(pool, what, runs)
    sweeper = Sweeper(
        DueRunStore(pool),
        Rules(),
        lambda: True,
        Telemetry(TracerProvider().get_tracer(""), CollectorRegistry()),
        1,
    )
    before, began = await wal_position(pool), time.perf_counter()
    rounds = 1
    with structlog.testing.capture_logs():
        while await sweeper.round():
            rounds += 1
    seconds, wal = time.perf_counter() - began, await wal_position(pool) - before
    print(
        f"\n{what}, {runs} runs, {batch} a batch: {rounds} transactions,"
        f" {seconds / runs * 1e6:.0f} µs and {wal / runs:.0f} B of WAL a run"
    )
    async with pool.connection() as connection:
        assert not await connection.fetchval("SELECT count(*) FROM run WHERE due_at < clock_timestamp()")


async def due_runs(pool: Pool, what: str, runs: int) -> None:
    template = await Seed(pool).run("a", status="running")
    lease = (
        ("00000000-0000-7000-8000-000000000001", "w", 30) if what == "lease expired" else (None, None, None)
    )
    async with pool.connection() as connection:
        now = await connection.fetchval("SELECT clock_timestamp()")
        await connection.execute(COPY, template, runs, *lease, now if lease[0] else None)
        await connection.execute("DELETE FROM run WHERE run_id = $1", template)
        if what == "idle":
            await connection.execute("UPDATE run SET last_event_at = last_event_at - interval '1 hour'")
        await connection.execute("VACUUM ANALYZE run")
        await connection.execute("CHECKPOINT")


async def wal_position(pool: Pool) -> int:
    async with pool.connection() as connection:
        return int(await connection.fetchval("SELECT pg_current_wal_insert_lsn() - '0/0'"))
