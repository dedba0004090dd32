"""What only Postgres does: rendering, rows whose run is gone, and removing deleted runs."""

from contextlib import asynccontextmanager

import pytest

from juinie_publisher.store.deleted_runs import PURGE_APPEND_KEYS, PURGE_EVENTS, DeletedRunStore
from juinie_publisher.store.due_runs import DueRunStore
from juinie_publisher.store.kept_runs import ALONG_INDEX
from juinie_publisher.store.outbox import OutboxStore, WindowLimits
from juinie_shared.domain.ids import SHARDS
from juinie_testkit.counts import RUNS_READ
from juinie_testkit.seed import Seed

ALL = range(SHARDS)


@pytest.fixture
def store(pool):
    return OutboxStore(pool)


@pytest.fixture
def seed(pool):
    return Seed(pool)


async def publish_all(store):
    """As the relay does, without a topic."""
    window = await store.fetch(ALL, WindowLimits())
    await store.delete([row.id for row in window.rows])
    return window.rows


async def execute(pool, sql, *args):
    async with pool.connection() as connection:
        return await connection.execute(sql, *args)


async def left_of(pool, run_id):
    """How many rows of a run each table still has."""
    tables = ("run", "run_event", "append_key", "create_key", "run_tombstone")
    async with pool.connection() as connection:
        return [
            await connection.fetchval(f"SELECT count(*) FROM {table} WHERE run_id = $1", run_id)
            for table in tables
        ]


async def test_row_carries_tenant_trace_and_age(store, seed):
    key = await seed.key("a")
    run = await seed.run(key)
    await publish_all(store)
    await seed.append(run, ("token", {"delta": "Hel"}), traceparent="00-1-2-01")
    (row,) = await publish_all(store)
    assert (row.traceparent, row.records[0].traceparent) == ("00-1-2-01", "00-1-2-01")
    assert row.records[0].run.tenant_id == key.tenant_id
    assert 0 <= row.age_seconds < 60


async def test_rows_of_purged_events_and_of_a_run_that_is_gone_are_given_without_them(pool, store, seed):
    kept, gone = await seed.run("a"), await seed.run("a")
    await seed.append(kept, ("token", 1), ("token", 2), ("token", 3))
    await execute(pool, "DELETE FROM run_event WHERE run_id = $1 AND seq < 4", kept)
    await execute(pool, "DELETE FROM run WHERE run_id = $1", gone)
    rows = await publish_all(store)
    assert [(row.run_id, [record.seq for record in row.records], row.events_missing) for row in rows] == [
        (kept, [], 1), (gone, [], 1), (kept, [4], 2),
    ]  # fmt: skip


async def test_run_that_was_known_and_is_gone_is_given_without_its_events(pool, store, seed):
    run = await seed.run("a")
    await publish_all(store)
    await seed.append(run, ("token", 1), ("token", 2))
    await execute(pool, "DELETE FROM run_event WHERE run_id = $1", run)
    await execute(pool, "DELETE FROM run WHERE run_id = $1", run)
    (row,) = await publish_all(store)
    assert (row.records, row.events_missing) == ([], 2)


async def test_more_runs_than_are_remembered_have_their_own_tenants(store, seed, monkeypatch):
    monkeypatch.setattr("juinie_publisher.store.outbox.MOST_RUNS_KNOWN", 3)
    one, other = await seed.key("a"), await seed.key("a")
    owners = {await seed.run(key): key.tenant_id for key in (one, other, one, other)}
    for runs in (list(owners)[:2], list(owners)[1:], list(owners)):
        for run in runs:
            await seed.append(run, ("token", 1))
        rows = await publish_all(store)
        assert {row.run_id for row in rows} >= set(runs)
        assert all(record.run.tenant_id == owners[row.run_id] for row in rows for record in row.records)


async def test_backlog_counts_rows_and_tells_the_age_of_the_oldest(pool, store, seed):
    empty = await store.backlog()
    assert (empty.pending, empty.oldest_age_seconds) == (0, 0.0)
    run = await seed.run("a")
    await seed.append(run, ("token", 1), ("token", 2))
    await execute(pool, "UPDATE outbox SET created_at = created_at - interval '1 minute' WHERE first_seq = 1")
    backlog = await store.backlog()
    assert backlog.pending == 2
    assert 60 <= backlog.oldest_age_seconds < 120


async def test_deleted_run_is_removed_once_nothing_of_it_is_left_to_publish(pool, store, seed):
    run, other = await seed.run("a", status="success"), await seed.run("a")
    await execute(
        pool,
        "INSERT INTO append_key SELECT $1, 'k' || n, '', '', 1, 1, '', false FROM generate_series(1, 5) n",
        run,
    )
    await execute(pool, "INSERT INTO create_key SELECT tenant_id, 'k', '', $1 FROM tenant", run)
    await seed.delete(run)
    assert await DeletedRunStore(pool, hidden_seconds=0).purge_some(1000) == (False, False)
    await publish_all(store)
    assert await DeletedRunStore(pool, hidden_seconds=0).purge_some(1000) == (True, True)
    assert await left_of(pool, run) == [0, 0, 0, 0, 1]
    assert await left_of(pool, other) == [1, 1, 0, 0, 0]
    assert await DeletedRunStore(pool, hidden_seconds=0).purge_some(1000) == (False, False)


async def test_the_row_of_a_deleted_run_stays_longer_than_a_create_that_had_begun_before(pool, store, seed):
    """Such a create sees no tombstone yet: it is the row that says that the id is taken."""
    run = await seed.run("a", status="success")
    await seed.delete(run)
    await publish_all(store)
    await execute(pool, "UPDATE run SET deleted_at = clock_timestamp() - interval '5 seconds'")
    assert await DeletedRunStore(pool).purge_some(1000) == (False, False)
    await execute(pool, "UPDATE run SET deleted_at = clock_timestamp() - interval '11 seconds'")
    assert await DeletedRunStore(pool).purge_some(1000) == (True, True)


async def test_long_run_is_removed_in_batches(pool, store, seed):
    run = await seed.run("a")
    await seed.append(run, *[("token", n) for n in range(24)])
    await seed.delete(run)
    await publish_all(store)
    steps = [await DeletedRunStore(pool, hidden_seconds=0).purge_some(10) for _ in range(3)]
    assert steps == [(True, False), (True, False), (True, True)]
    assert await left_of(pool, run) == [0, 0, 0, 0, 1]


READ = """
    SELECT sum(coalesce(seq_tup_read, 0) + coalesce(idx_tup_fetch, 0))::int
    FROM pg_stat_xact_user_tables WHERE relname IN ('run_event', 'append_key')
"""


async def test_a_long_run_among_short_ones_is_removed_without_reading_it_again_and_again(pool, seed):
    """Statistics say that a run has an event or two, and no more than one key."""
    run = await seed.run("a", status="success")
    async with pool.connection() as connection:
        for table in ("run_event", "append_key"):
            await connection.execute(f"ALTER TABLE {table} SET (autovacuum_enabled = off)")
        await connection.execute(
            "INSERT INTO run_event (run_id, seq, type, data) SELECT gen_random_uuid(), 1, 'x', 'null' FROM generate_series(1, 20000)"
        )
        await connection.execute(
            "INSERT INTO append_key SELECT gen_random_uuid(), 'k', '', '', 1, 1, '', false FROM generate_series(1, 20000)"
        )
        await connection.execute("ANALYZE run_event, append_key")
        await connection.execute(
            "INSERT INTO run_event (run_id, seq, type, data) SELECT $1, n, 'x', 'null' FROM generate_series(10, 4009) n",
            run,
        )
        await connection.execute(
            "INSERT INTO append_key SELECT $1, 'k' || n, '', '', 1, 1, '', false FROM generate_series(1, 2000) n",
            run,
        )
        for statement in (PURGE_EVENTS, PURGE_APPEND_KEYS):
            async with connection.transaction():
                await connection.execute(ALONG_INDEX)
                before = await connection.fetchval(READ)
                assert await connection.execute(statement, run, 500) == "DELETE 500"
                assert await connection.fetchval(READ) - before <= 4 * 500


RUNS_DUE_IN = """
    INSERT INTO run (run_id, tenant_id, shard, agent, last_seq, idle_timeout_seconds, deadline_at, due_at, fingerprint)
    SELECT gen_random_uuid(), tenant_id, 0, 'a', 1, 60, now() + interval '1 day', now() + make_interval(secs => $1), ''
    FROM tenant, generate_series(1, $2::int)
"""


async def test_a_look_for_what_is_overdue_reads_no_other_runs(pool, seed):
    """Nobody has counted them yet."""
    await seed.key()
    async with pool.connection() as connection:
        await connection.execute("ALTER TABLE run SET (autovacuum_enabled = off)")
        await connection.execute(RUNS_DUE_IN, 3600, 50_000)
    async with pool.transaction() as tx:
        before = await tx.fetchval(RUNS_READ)
        assert await DueRunStore(OnlyThis(tx)).count_overdue(10) == 0
        assert await tx.fetchval(RUNS_READ) - before <= 100


class OnlyThis:
    """A pool of one session, whose counts of a transaction can be read in it."""

    def __init__(self, tx):
        self._tx = tx

    @asynccontextmanager
    async def connection(self):
        yield self._tx

    transaction = connection


async def test_run_that_another_publisher_is_removing_is_left_to_it(pool, store, seed):
    run = await seed.run("a")
    await seed.delete(run)
    await publish_all(store)
    async with pool.transaction() as other:
        await other.execute("SELECT FROM run WHERE run_id = $1 FOR UPDATE", run)
        assert await DeletedRunStore(pool, hidden_seconds=0).purge_some(10) == (False, False)
    assert await DeletedRunStore(pool, hidden_seconds=0).purge_some(10) == (True, True)
