"""What retention takes, what it leaves, and what a run says of it at every moment."""

import asyncio
import re
from contextlib import asynccontextmanager
from datetime import timedelta

import pytest

from juinie_publisher.core import retention
from juinie_publisher.core.purge import purge
from juinie_publisher.core.retention import Retention
from juinie_publisher.store.deleted_runs import DeletedRunStore
from juinie_publisher.store.kept_runs import (
    BY_INDEX_ALONE,
    LOCK_WITH_EVENTS,
    REMOVE_EVENTS,
    KeptRunStore,
    Removed,
)
from juinie_testkit.seed import Seed
from juinie_testkit.waits import eventually

DAY = timedelta(days=1)
FINISHED_AGO = "UPDATE run SET finished_at = clock_timestamp() - $2::interval WHERE run_id = $1"
KEEPS = "UPDATE tenant SET events_after = $2, runs_after = $3 WHERE name = $1"
SAYS = "SELECT retained_from_seq, events_removed_at IS NOT NULL FROM run WHERE run_id = $1"
MANY_RUNS = """
    INSERT INTO run (run_id, tenant_id, shard, agent, status, last_seq, retained_from_seq, idle_timeout_seconds, deadline_at,
        fingerprint, finished_at, events_removed_at)
    SELECT gen_random_uuid(), tenant_id, shard, agent, status, 5, 6, 3600, deadline_at, fingerprint, finished_at,
        CASE WHEN n % 100 > 0 THEN clock_timestamp() END
    FROM run, generate_series(1, 3000) AS n WHERE run_id = $1
"""
SEQS = "SELECT seq FROM run_event WHERE run_id = $1 ORDER BY seq"


MANY_DELETED = """
    INSERT INTO run (run_id, tenant_id, shard, agent, status, idle_timeout_seconds, deadline_at, fingerprint, deleted_at)
    SELECT gen_random_uuid(), $1, 0, 'a', 'success', 3600, now(), '', now() FROM generate_series(1, 1000)
"""
TO_PUBLISH = (
    "INSERT INTO outbox (shard, run_id, first_seq, last_seq, bytes) SELECT 0, run_id, 1, 1, 1 FROM run"
)
SCANNED = "SELECT seq_tup_read FROM pg_stat_xact_user_tables WHERE relname = 'outbox'"


@pytest.fixture
def seed(pool):
    return Seed(pool)


@pytest.fixture
async def key(seed):
    return await seed.key()


@pytest.fixture
def store(pool):
    return KeptRunStore(pool)


@pytest.fixture
def round_of(store, told, stopping):
    return lambda: Retention(store, lambda: True, told.telemetry).round(stopping)


async def execute(pool, sql, *args):
    async with pool.connection() as connection:
        return await connection.execute(sql, *args)


async def rows(pool, sql, *args):
    async with pool.connection() as connection:
        return [tuple(row.values()) for row in await connection.fetch(sql, *args)]


async def seqs(pool, run_id):
    return [seq for (seq,) in await rows(pool, SEQS, run_id)]


@pytest.fixture
def old_run(pool, seed, key):
    """A run that finished two days ago, of which Kafka has everything. `events` in all."""

    async def make(events=5, ago=2 * DAY, owner=key, published=True):
        run_id = await seed.run(owner, status="running")
        if events > 3:
            await seed.append(run_id, *[("token", n) for n in range(events - 3)])
        await seed.finish(run_id, output={"answer": 42})
        await execute(pool, FINISHED_AGO, run_id, ago)
        if published:
            await execute(pool, "DELETE FROM outbox WHERE run_id = $1", run_id)
        return run_id

    return make


async def test_events_go_after_their_time_and_the_run_stays(pool, old_run, round_of, told):
    await execute(pool, KEEPS, "a", DAY, None)
    old, young = await old_run(), await old_run(ago=DAY / 2)
    assert await round_of() is False
    assert (await seqs(pool, old), await seqs(pool, young)) == ([], [1, 2, 3, 4, 5])
    assert await rows(pool, SAYS, old) == [(6, True)]
    assert await rows(pool, SAYS, young) == [(1, False)]
    assert await rows(pool, "SELECT status, last_seq, output FROM run WHERE run_id = $1", old) == [
        ("success", 5, '{"answer":42}')
    ]
    assert told.count("juinie_retention_events_total") == 5


async def test_tenant_that_keeps_for_ever_loses_nothing(pool, seed, old_run, round_of, store):
    other = await old_run(owner=await seed.key(tenant="b"))
    kept = await old_run(ago=timedelta(days=3650))
    await execute(pool, KEEPS, "b", DAY, None)
    assert [tenant.events_after for tenant in await store.tenants()] == [DAY]
    await round_of()
    assert (await seqs(pool, other), await seqs(pool, kept)) == ([], [1, 2, 3, 4, 5])


async def test_run_that_has_not_finished_keeps_all_however_old(pool, seed, key, round_of):
    await execute(pool, KEEPS, "a", timedelta(seconds=1), timedelta(seconds=1))
    pending, running = await seed.run(key), await seed.run(key, status="running")
    await execute(pool, "DELETE FROM outbox")
    await execute(
        pool, "UPDATE run SET created_at = created_at - interval '1 year', last_event_at = created_at"
    )
    await round_of()
    assert (await seqs(pool, pending), await seqs(pool, running)) == ([1], [1, 2])


async def test_nothing_goes_while_something_is_still_to_be_published(pool, old_run, round_of):
    await execute(pool, KEEPS, "a", DAY, DAY)
    run = await old_run(published=False)
    await round_of()
    assert (await seqs(pool, run), await rows(pool, SAYS, run)) == ([1, 2, 3, 4, 5], [(1, False)])
    await execute(pool, "DELETE FROM outbox WHERE run_id = $1", run)
    await execute(pool, KEEPS, "a", DAY, None)
    await round_of()
    assert await seqs(pool, run) == []


async def test_batch_ends_within_a_run_and_the_run_says_where(pool, key, old_run, store):
    first, second, third = await old_run(4), await old_run(10, ago=1.5 * DAY), await old_run(4, ago=1.2 * DAY)
    steps = []
    for _ in range(4):
        removed = await store.remove_events(key.tenant_id, DAY, 6)
        left = [await seqs(pool, run) for run in (first, second, third)]
        says = [(await rows(pool, SAYS, run))[0] for run in (first, second, third)]
        steps.append((removed, [len(found) for found in left], says))
        for found, (retained, _), last in zip(left, says, (4, 10, 4), strict=True):
            assert found == list(range(retained, last + 1)), "what the run says is what there is"
    assert steps == [
        (Removed(6, 2), [0, 8, 4], [(5, True), (3, False), (1, False)]),
        (Removed(6, 1), [0, 2, 4], [(5, True), (9, False), (1, False)]),
        (Removed(6, 2), [0, 0, 0], [(5, True), (11, True), (5, True)]),
        (Removed(0, 0), [0, 0, 0], [(5, True), (11, True), (5, True)]),
    ]


async def test_what_a_reader_sees_in_one_snapshot_is_whole_or_told(pool, key, old_run, store):
    """Readers at any moment of the removal: the events from `retained_from_seq` on are all there."""
    run = await old_run(400)
    reads = []

    def all_is_gone():
        return bool(reads) and reads[-1][0] > 400

    async def remove():
        removed = True
        while removed:
            seen = len(reads)
            await eventually(lambda seen=seen: len(reads) > seen or all_is_gone(), 30, "a reader who looks")
            removed = (await store.remove_events(key.tenant_id, DAY, 7)).runs

    async def read():
        while not all_is_gone():
            sql = "SELECT retained_from_seq, (SELECT array_agg(seq ORDER BY seq) FROM run_event e WHERE e.run_id = run.run_id) FROM run WHERE run_id = $1"
            reads.extend(await rows(pool, sql, run))

    await asyncio.gather(remove(), read(), read())
    assert len({retained for retained, _ in reads}) > 2
    for retained, found in reads:
        assert (found or []) == list(range(retained, 401))


async def test_run_that_somebody_has_locked_is_left_for_the_next_time(pool, key, old_run, store):
    locked, other = await old_run(), await old_run()
    async with pool.transaction() as tx:
        await tx.execute("SELECT FROM run WHERE run_id = $1 FOR UPDATE", locked)
        assert await store.remove_events(key.tenant_id, DAY, 1000) == Removed(5, 1)
        assert await store.bury_runs(key.tenant_id, DAY, 1000) == 1
    assert (await seqs(pool, locked), await seqs(pool, other)) == ([1, 2, 3, 4, 5], [])


async def test_run_goes_after_its_time_and_leaves_its_id(pool, old_run, round_of, told, stopping):
    await execute(pool, KEEPS, "a", None, DAY)
    run = await old_run()
    await execute(pool, "INSERT INTO append_key VALUES ($1, 'k', '', '', 1, 1, '', false)", run)
    await execute(pool, "INSERT INTO create_key SELECT tenant_id, 'k', '', $1 FROM tenant", run)
    await round_of()
    assert await rows(pool, "SELECT deleted_at IS NOT NULL FROM run WHERE run_id = $1", run) == [(True,)]
    assert await rows(pool, "SELECT run_id FROM run_tombstone") == [(run,)]
    purging = asyncio.create_task(
        purge(DeletedRunStore(pool, hidden_seconds=0), lambda: True, told.telemetry, stopping)
    )
    await eventually(lambda: told.count("juinie_runs_purged_total"), 10, "the run is purged")
    stopping.set()
    await purging
    for table in ("run", "run_event", "append_key", "create_key"):
        assert await rows(pool, f"SELECT FROM {table} WHERE run_id = $1", run) == [], table
    assert await rows(pool, "SELECT run_id FROM run_tombstone") == [(run,)]


async def test_events_first_and_the_run_later(pool, old_run, round_of):
    await execute(pool, KEEPS, "a", DAY, 3 * DAY)
    two_days, four_days = await old_run(), await old_run(ago=4 * DAY)
    await round_of()
    deleted = "SELECT deleted_at IS NOT NULL, events_removed_at IS NOT NULL FROM run WHERE run_id = $1"
    assert await rows(pool, deleted, two_days) == [(False, True)]
    assert await rows(pool, deleted, four_days) == [(True, False)], "its events go with it"


@pytest.mark.parametrize("interval", ["-1 day", "0", "900000000 hours", "100000 years"])
async def test_what_somebody_wrote_by_hand_harms_nobody(pool, seed, old_run, round_of, told, interval):
    await execute(pool, "UPDATE tenant SET events_after = $1::text::interval", interval)
    run = await old_run()
    await seed.key(tenant="b")
    await execute(pool, KEEPS, "b", DAY, None)
    await round_of()
    assert told.count("juinie_retention_failures_total") == 0
    assert (await seqs(pool, run) == []) == (interval in {"-1 day", "0"})


async def test_full_batch_says_that_there_may_be_more(pool, old_run, round_of, monkeypatch):
    monkeypatch.setattr(retention, "EVENTS", 5)
    await execute(pool, KEEPS, "a", DAY, None)
    runs = [await old_run(), await old_run()]
    assert [await round_of(), await round_of(), await round_of()] == [True, True, False]
    assert [await seqs(pool, run) for run in runs] == [[], []]


async def test_old_events_are_found_and_removed_by_their_indexes(pool, key, old_run):
    """Among many runs whose events are gone already, and many events that stay."""
    run = await old_run()
    await execute(pool, MANY_RUNS, run)
    await execute(
        pool,
        "INSERT INTO run_event SELECT run_id, seq, 'token', 'null' FROM run, generate_series(6, 20) AS seq",
    )
    for table in ("run", "run_event", "outbox"):
        await execute(pool, f"VACUUM ANALYZE {table}")
    asked = (("$1", f"'{key.tenant_id}'::uuid"), ("$2", "'1 day'"), ("$3", "1000"))
    locked = await explained(pool, LOCK_WITH_EVENTS, asked)
    removed = await explained(pool, REMOVE_EVENTS, (("$1", f"array['{run}']"), ("$2", "1000")))
    for plan, indexes in (
        (locked, ("run_finished_idx", "outbox_run_id_idx")),
        (removed, ("run_pkey", "run_event_pkey", "outbox_run_id_idx")),
    ):
        assert [index for index in indexes if index not in plan] == [], plan
        assert not re.search(r"Seq Scan on (run|run_event|outbox)\b", plan), plan


async def explained(pool, sql, values):
    for name, value in values:
        sql = sql.replace(name, value)
    async with pool.transaction() as tx:
        await tx.execute(BY_INDEX_ALONE)
        return "\n".join(row["QUERY PLAN"] for row in await tx.fetch(f"EXPLAIN {sql}"))


@pytest.mark.parametrize("what", ["events", "runs"])
async def test_what_was_republished_just_before_the_lock_is_left_alone(pool, key, old_run, what):
    """Its outbox row is younger than the statement that finds and locks the run, which does not see it."""
    run = await old_run()

    class Republished:
        @asynccontextmanager
        async def transaction(self):
            async with pool.transaction() as tx:
                yield Statements(tx, lambda: execute(pool, TO_PUBLISH))

    store = KeptRunStore(Republished())
    if what == "events":
        assert await store.remove_events(key.tenant_id, DAY, 1000) == Removed(0, 0)
    else:
        assert await store.bury_runs(key.tenant_id, DAY, 1000) == 0
    assert await seqs(pool, run) == [1, 2, 3, 4, 5]
    assert await rows(pool, SAYS, run) == [(1, False)]
    assert await rows(pool, "SELECT deleted_at FROM run") == [(None,)]


class Statements:
    """A connection on which something happens before every statement but the first two: SET, and the one that locks."""

    def __init__(self, tx, happens):
        self._tx, self._happens, self._count = tx, happens, 0

    def __getattr__(self, name):
        async def statement(*args):
            self._count += 1
            if self._count > 2:
                await self._happens()
            return await getattr(self._tx, name)(*args)

        return statement


async def test_only_runs_that_are_cut_are_locked(pool, key, old_run):
    """The others stay free for whoever wants them meanwhile."""
    cut, other = await old_run(), await old_run(ago=1.5 * DAY)
    async with pool.transaction() as tx:
        locked = [row["run_id"] for row in await tx.fetch(LOCK_WITH_EVENTS, key.tenant_id, DAY, 5)]
        free = await rows(pool, "SELECT run_id FROM run FOR UPDATE SKIP LOCKED")
    assert (locked, free) == ([cut], [(other,)])


async def test_purge_looks_into_the_outbox_by_index_also_with_a_plan_from_when_it_was_empty(pool, key):
    """As when Kafka goes away: the statement was prepared long before, and each deleted run has a row now."""

    class Watched:
        scanned = 0

        @asynccontextmanager
        async def transaction(self):
            async with pool.transaction() as tx:
                yield tx
                self.scanned = await tx.fetchval(SCANNED)

    await execute(pool, "ALTER TABLE outbox SET (autovacuum_enabled = off)")
    await execute(pool, MANY_DELETED, key.tenant_id)
    for table in ("run", "outbox"):
        await execute(pool, f"ANALYZE {table}")
    watched = Watched()
    assert await DeletedRunStore(watched, hidden_seconds=0).purge_some(10) == (True, True)
    await execute(pool, TO_PUBLISH)
    assert await DeletedRunStore(watched, hidden_seconds=0).purge_some(10) == (False, False)
    assert watched.scanned == 0
