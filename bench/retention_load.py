"""Whether removing old events hurts appends: the same appends with and without it, in turns, within one run.

.venv/bin/pytest -s bench/retention_load.py
"""

import asyncio
import time
from collections import defaultdict
from pathlib import Path

import pytest
import structlog
from opentelemetry.sdk.trace import TracerProvider
from prometheus_client import CollectorRegistry

from juinie_api.app import serve
from juinie_api.settings import Settings
from juinie_publisher.core import retention
from juinie_publisher.core.retention import Retention
from juinie_publisher.store.kept_runs import KeptRunStore
from juinie_publisher.telemetry import Telemetry
from juinie_shared.db.pool import Pool
from juinie_testkit.client import ApiClient
from juinie_testkit.running import running
from juinie_testkit.seed import Seed

pytestmark = pytest.mark.timeout(550)

RUNS, EVENTS_A_RUN = 1000, 1000
WRITERS = 4
ROUNDS, ROUND_SECONDS = 12, 3.0

OLD_RUNS = """
    INSERT INTO run (run_id, tenant_id, shard, agent, status, last_seq, idle_timeout_seconds, deadline_at, fingerprint,
        due_at, finished_at)
    SELECT gen_random_uuid(), tenant_id, n % 64, 'old', 'success', $2, 3600, deadline_at, fingerprint, NULL,
        clock_timestamp() - interval '40 days'
    FROM run, generate_series(1, $3) AS n WHERE run_id = $1
"""
OLD_EVENTS = """
    INSERT INTO run_event (run_id, seq, type, data)
    SELECT $1, seq, 'token', '{"delta":"' || repeat('x', 180) || '"}' FROM generate_series(1, $2::int) AS seq
"""


async def test_appends_beside_removal(
    pool: Pool, database_url: str, signing_keys: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(retention, "EVERY_SECONDS", 0.05)
    await old_events(pool)
    key = await Seed(pool).key()
    settings = Settings.model_validate(
        {"database_url": database_url, "env": "test", "port": 0, "stream_token_keys": signing_keys}
    )
    removing, stopping = False, asyncio.Event()

    def has_duty() -> bool:
        return removing

    telemetry = Telemetry(TracerProvider().get_tracer(""), CollectorRegistry())
    seconds_of = defaultdict[bool, list[float]](list)
    cpu_of = defaultdict[bool, float](float)
    removed_in = 0
    with structlog.testing.capture_logs():
        async with running(serve, settings) as service, ApiClient(service.url, key.text) as api:
            cleaning = asyncio.create_task(Retention(KeptRunStore(pool), has_duty, telemetry).run(stopping))
            run_ids = [(await api.create())["run_id"] for _ in range(WRITERS)]
            await round_of_appends(api, run_ids)  # warm
            for number in range(ROUNDS):
                removing = number % 2 == 1
                before, cpu = await old_events_left(pool), await postgres_cpu_seconds(pool)
                seconds_of[removing] += await round_of_appends(api, run_ids)
                cpu_of[removing] += await postgres_cpu_seconds(pool) - cpu
                removed_in += before - await old_events_left(pool)
            stopping.set()
            await cleaning
    report(seconds_of, cpu_of, removed_in)


async def old_events(pool: Pool) -> None:
    template = await Seed(pool).run("old", status="success")
    async with pool.connection() as connection:
        await connection.execute("UPDATE tenant SET events_after = interval '30 days'")
        await connection.execute(OLD_RUNS, template, EVENTS_A_RUN, RUNS)
        run_ids = await connection.fetch("SELECT run_id FROM run WHERE agent = 'old'")
        for row in run_ids:
            await connection.execute(OLD_EVENTS, row["run_id"], EVENTS_A_RUN)
        await connection.execute("DELETE FROM outbox")
    for table in ("run", "run_event"):
        async with pool.connection() as connection:
            await connection.execute(f"ANALYZE {table}")


async def round_of_appends(api: ApiClient, run_ids: list[str]) -> list[float]:
    """How long each append took, for as long as a round is."""
    until, seconds = time.perf_counter() + ROUND_SECONDS, list[float]()

    async def write(run_id: str) -> None:
        while (began := time.perf_counter()) < until:
            await api.append(run_id, ("token", {"delta": "x" * 180}))
            seconds.append(time.perf_counter() - began)

    await asyncio.gather(*(write(run_id) for run_id in run_ids))
    return seconds


async def old_events_left(pool: Pool) -> int:
    async with pool.connection() as connection:
        return int(
            await connection.fetchval(
                "SELECT sum(last_seq - retained_from_seq + 1) FROM run WHERE agent = 'old'"
            )
        )


async def postgres_cpu_seconds(pool: Pool) -> float:
    """Of all sessions of this database, so far, by the scheduler's count. Found by their titles: the server may count
    its processes otherwise than we do."""
    async with pool.connection() as connection:
        name = await connection.fetchval("SELECT current_database()")
    return _cpu_seconds_of_sessions(name)


def _cpu_seconds_of_sessions(database: str) -> float:
    return sum(_cpu_seconds(process, database) for process in Path("/proc").glob("[0-9]*"))


def _cpu_seconds(process: Path, database: str) -> float:
    try:
        title = (process / "cmdline").read_text()
        ours = title.startswith("postgres: ") and f" {database} " in title
        return int((process / "schedstat").read_text().split()[0]) / 1e9 if ours else 0.0
    except OSError:  # it has ended
        return 0.0


def report(seconds_of: dict[bool, list[float]], cpu_of: dict[bool, float], removed: int) -> None:
    alone, beside = (sorted(seconds_of[removing]) for removing in (False, True))
    on_seconds = ROUNDS / 2 * ROUND_SECONDS
    print(f"\n{removed} events removed in {on_seconds:g} s; {WRITERS} writers; {ROUNDS} rounds in turns")
    for name, part in (("p50", 0.5), ("p99", 0.99)):
        off, on = (found[int(len(found) * part)] for found in (alone, beside))
        print(f"{name}: {off * 1e3:.2f} ms alone, {on * 1e3:.2f} ms beside removal: x{on / off:.2f}")
    print(f"appends: {len(alone)} alone, {len(beside)} beside: x{len(beside) / len(alone):.2f}")
    off_cpu = cpu_of[False] / len(alone)
    extra = cpu_of[True] - off_cpu * len(beside)
    print(
        f"Postgres CPU: {off_cpu * 1e6:.0f} us an append;"
        f" {extra / max(removed, 1) * 1e6:.1f} us an event removed, {extra / on_seconds:.1%} of one core"
    )
