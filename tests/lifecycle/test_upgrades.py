"""Upgrades under traffic, and downgrades with data: no request fails, and nothing is lost.

Services of this version refuse an older schema, so the version with schema 0001 stands for the one before, by what it
says to the database. Its writers make runs, append, finish and read; its relay takes what is in the outbox.
"""

import asyncio
import contextlib
import json

import pytest
from opentelemetry.trace import NoOpTracer
from prometheus_client import CollectorRegistry

from juinie_publisher.core.judge import Rules
from juinie_publisher.core.sweep import Sweeper
from juinie_publisher.store.due_runs import DueRunStore
from juinie_publisher.store.outbox import OutboxStore, WindowLimits
from juinie_publisher.telemetry import Telemetry
from juinie_shared.db.migrate import downgrade, migrate
from juinie_shared.db.pool import Pool, PoolLimits, connect, open_pool
from juinie_shared.db.schema import check_schema, known_revisions
from juinie_shared.domain.ids import SHARDS, RunId, new_run_id
from juinie_testkit.old_version import OldVersion, old_version
from juinie_testkit.seed import Seed
from juinie_testkit.waits import eventually

PENULTIMATE = known_revisions()[1]
STATUSES = ("pending", "running", "success", "error", "cancelled", "timeout")
DATA = {
    "runs": "SELECT run_id, status, last_seq, created_at, finished_at, deleted_at FROM run ORDER BY run_id",
    "events": "SELECT run_id, seq, type, data, occurred_at FROM run_event ORDER BY run_id, seq",
    "outbox": "SELECT * FROM outbox ORDER BY id",
    "tombstones": "SELECT * FROM run_tombstone ORDER BY run_id",
    "tenants": "SELECT tenant_id, name FROM tenant",
}
DEAD_LETTER = """
    INSERT INTO dead_letter (tenant_id, run_id, first_seq, last_seq, shard, reason)
    SELECT tenant_id, run_id, 1, 1, shard, 'x' FROM run LIMIT 1
"""
UNSWEPT = "SELECT count(*) FROM run WHERE due_at <= clock_timestamp()"
SEQS = "SELECT array_agg(seq ORDER BY seq) FROM run_event WHERE run_id = $1"
SLOW = PoolLimits(statement_seconds=60)


@pytest.fixture
async def old(empty_database_url: str):
    """The old version, on its own schema, with time limits as services have them."""
    await migrate(empty_database_url, "0001")
    pool = await open_pool(empty_database_url, "old")
    yield await old_version(pool)
    await pool.close()


@contextlib.asynccontextmanager
async def serving(old: OldVersion):
    """Traffic, from before the body until after it."""
    stopping = asyncio.Event()
    task = asyncio.create_task(old.serve(stopping))
    try:
        await _more(old)
        yield
        await _more(old)
    finally:
        stopping.set()
        await task


async def _more(old: OldVersion) -> None:
    enough = old.requests + 200
    await eventually(lambda: old.requests > enough, 60, "traffic flows")


async def relay_rest(old: OldVersion) -> None:
    while await old.relay():
        pass


async def sweep_all(pool: Pool) -> None:
    telemetry = Telemetry(NoOpTracer(), CollectorRegistry())
    sweeper = Sweeper(DueRunStore(pool), Rules(), lambda: True, telemetry, every_seconds=0)
    while await sweeper.round():
        pass


async def ask(pool: Pool, statement: str, *args: object) -> object:
    async with pool.connection() as connection:
        return await connection.fetchval(statement, *args)


async def read_all(pool: Pool) -> dict[str, object]:
    async with pool.connection() as connection:
        return {name: [tuple(row.values()) for row in await connection.fetch(DATA[name])] for name in DATA}


@pytest.mark.parametrize("revision", ["0001", PENULTIMATE])
async def test_no_request_fails_while_the_schema_is_upgraded(old, empty_database_url, revision):
    await migrate(empty_database_url, revision)
    async with serving(old):
        await migrate(empty_database_url)
        async with old.pool.connection() as connection:
            await check_schema(connection)
    await relay_rest(old)
    assert old.failures == []
    assert len(old.last_seqs) > 10
    for run_id, last_seq in old.last_seqs.items():
        all_seqs = list(range(1, last_seq + 1))
        assert await ask(old.pool, SEQS, run_id) == all_seqs
        assert old.relayed[run_id] == all_seqs


async def test_no_request_fails_while_the_schema_goes_down_and_up_again(old, empty_database_url):
    await migrate(empty_database_url)
    async with serving(old):
        await downgrade(empty_database_url, "0001")
        await migrate(empty_database_url)
    assert old.failures == []


async def test_a_transaction_that_holds_the_runs_fails_nobody(old, empty_database_url):
    holder = await connect(empty_database_url, "holder", SLOW)
    await holder.execute("BEGIN; LOCK TABLE run IN ACCESS SHARE MODE")
    await holder.execute("SET idle_in_transaction_session_timeout = 0")
    async with serving(old):
        migrating = asyncio.create_task(migrate(empty_database_url))
        for _ in range(2):
            await eventually(lambda: _waits_for_runs(old.pool), 30, "the migrator waits for the runs")
            await _more(old)
        await holder.execute("COMMIT")
        await migrating
    await holder.close()
    assert old.failures == []


async def _waits_for_runs(pool: Pool) -> object:
    return await ask(
        pool,
        "SELECT count(*) FROM pg_locks WHERE NOT granted AND relation = 'run'::regclass AND mode = 'AccessExclusiveLock'",
    )


async def test_sweeper_finds_what_the_old_version_made_before_and_after(old, empty_database_url):
    open_before, ended_before, open_after, ended_after = runs = [new_run_id() for _ in range(4)]
    for run_id in (open_before, ended_before):
        await old.create(run_id)
    await old.finish(ended_before)
    await migrate(empty_database_url)
    for run_id in (open_after, ended_after):
        await old.create(run_id)
        await old.append(run_id, ["x"])
    await old.finish(ended_after)
    store = DueRunStore(old.pool)
    assert set(await store.find_due(10)) >= {open_before, open_after}
    assert ended_before not in await store.find_due(10)
    await sweep_all(old.pool)
    assert await ask(old.pool, UNSWEPT) == 0
    assert await _due(old.pool, runs) == {
        open_before: True, ended_before: False, open_after: True, ended_after: False
    }  # fmt: skip
    assert old.failures == []


async def _due(pool: Pool, runs: list[RunId]) -> dict[RunId, object]:
    """Whether a run will be looked at again."""
    return {
        run_id: await ask(pool, "SELECT due_at IS NOT NULL FROM run WHERE run_id = $1", run_id)
        for run_id in runs
    }


async def test_this_versions_relay_reads_what_the_old_version_wrote(old, empty_database_url):
    run_id = new_run_id()
    await old.create(run_id)
    await migrate(empty_database_url)
    await old.append(run_id, ["x", "y"])
    window = await OutboxStore(old.pool).fetch(range(SHARDS), WindowLimits())
    assert [(row.first_seq, row.last_seq) for row in window.rows if row.run_id == run_id] == [(1, 1), (2, 4)]
    assert [json.loads(record.event_json)["type"] for row in window.rows for record in row.records] == [
        "run.created",
        "run.started",
        "x",
        "y",
    ]


async def test_down_to_the_first_schema_and_up_again_loses_no_run_event_or_outbox_row(pool, database_url):
    seed = Seed(pool)
    key = await seed.key()
    runs = [await seed.run(key, status=status) for status in STATUSES]
    await seed.append(runs[1], ("x", {"n": 1}))
    await seed.delete(runs[2])
    await ask(pool, DEAD_LETTER)
    before = await read_all(pool)
    await downgrade(database_url, "0001")
    assert await read_all(pool) == before
    await migrate(database_url)
    assert await read_all(pool) == before
    assert set(await DueRunStore(pool).find_due(10)) == set(runs[:2])
