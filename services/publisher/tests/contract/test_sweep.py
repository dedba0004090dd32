"""What the sweeper does to the rows of runs that are due."""

import asyncio
import re

import pytest

from juinie_publisher.core.judge import Rules, judge
from juinie_publisher.core.sweep import Sweeper
from juinie_publisher.store.due_runs import TAKE_DUE, Decision, DueRunStore
from juinie_publisher.store.outbox import OutboxStore, WindowLimits
from juinie_shared.contracts.names import OUTBOX_CHANNEL
from juinie_shared.db.pool import connect
from juinie_shared.domain.errors import DatabaseBusy
from juinie_shared.domain.ids import SHARDS, new_uuid7
from juinie_testkit.seed import Seed
from juinie_testkit.waits import eventually

# The database's clock is not moved: moments are moved into its past.
LEASED = """
    UPDATE run SET status = 'running', attempt = $2, started_at = clock_timestamp(), due_at = clock_timestamp(),
        lease_token = gen_random_uuid(), lease_worker_id = 'w', lease_seconds = 30,
        lease_expires_at = clock_timestamp() + make_interval(secs => $3::float8)
    WHERE run_id = $1
"""
IDLE = "UPDATE run SET last_event_at = clock_timestamp() - make_interval(secs => idle_timeout_seconds) WHERE run_id = $1"
LATE = "UPDATE run SET deadline_at = clock_timestamp() WHERE run_id = $1"
CANCELLED_AGO = """
    UPDATE run SET cancel_requested_at = clock_timestamp() - make_interval(secs => $2::float8) WHERE run_id = $1
"""
NOT_DUE = "UPDATE run SET due_at = clock_timestamp() + interval '1 hour' WHERE run_id = $1"

RUN = """
    SELECT status, error, attempt, last_seq, finished_at IS NOT NULL AS finished, due_at IS NULL AS done,
           num_nonnulls(lease_token, lease_worker_id, lease_seconds, lease_expires_at) AS lease
    FROM run WHERE run_id = $1
"""
EVENTS = "SELECT seq, type, data FROM run_event WHERE run_id = $1 ORDER BY seq"


@pytest.fixture
def seed(pool):
    return Seed(pool)


@pytest.fixture
async def key(seed):
    return await seed.key()


@pytest.fixture
def sweeper(pool, told):
    return Sweeper(DueRunStore(pool), Rules(), lambda: True, told.telemetry, every_seconds=0)


async def execute(pool, sql, *args):
    async with pool.connection() as connection:
        return await connection.execute(sql, *args)


async def rows(pool, sql, *args):
    async with pool.connection() as connection:
        return [tuple(row.values()) for row in await connection.fetch(sql, *args)]


async def run_of(pool, run_id):
    async with pool.connection() as connection:
        return dict(await connection.fetchrow(RUN, run_id))


async def last_event(pool, run_id):
    return (await rows(pool, EVENTS, run_id))[-1]


@pytest.mark.parametrize(
    ("sql", "status", "error"),
    [
        (LATE, "timeout", '{"code":"deadline"}'),
        (IDLE, "error", '{"code":"idle"}'),
    ],
)
async def test_run_that_nobody_ends_is_ended_in_one_transaction(pool, seed, key, sweeper, sql, status, error):
    run = await seed.run(key, status="running")
    await execute(pool, "DELETE FROM outbox")
    await execute(pool, sql, run)
    await sweeper.round()
    assert await run_of(pool, run) == {
        "status": status, "error": error, "attempt": 1, "last_seq": 3, "finished": True, "done": True, "lease": 0,
    }  # fmt: skip
    assert await last_event(pool, run) == (
        3, "run.finished", f'{{"status":"{status}","output":null,"error":{error}}}',
    )  # fmt: skip
    (row,) = (await OutboxStore(pool).fetch(range(SHARDS), WindowLimits())).rows
    assert (row.run_id, row.first_seq, row.last_seq, [record.seq for record in row.records]) == (
        run,
        3,
        3,
        [3],
    )
    assert re.fullmatch(r"00-[0-9a-f]{32}-[0-9a-f]{16}-0[0-3]", row.traceparent)


async def test_pending_run_past_its_deadline_times_out(pool, seed, key, sweeper):
    run = await seed.run(key)
    await execute(pool, LATE, run)
    await sweeper.round()
    assert (await run_of(pool, run))["status"] == "timeout"
    assert [event[1] for event in await rows(pool, EVENTS, run)] == ["run.created", "run.finished"]


async def test_lease_that_runs_out_gives_the_run_back_until_its_attempts_are_used_up(
    pool, seed, key, sweeper
):
    run = await seed.run(key)
    for attempt in (1, 2):
        await execute(pool, LEASED, run, attempt, 0)
        await sweeper.round()
        assert await run_of(pool, run) == {
            "status": "pending", "error": None, "attempt": attempt, "last_seq": 1 + attempt, "finished": False,
            "done": False, "lease": 0,
        }  # fmt: skip
        assert await last_event(pool, run) == (1 + attempt, "run.lease_expired", f'{{"attempt":{attempt}}}')
    await execute(pool, LEASED, run, 3, 0)
    await sweeper.round()
    ended = await run_of(pool, run)
    assert (ended["status"], ended["error"], ended["lease"]) == ("error", '{"code":"lease_expired"}', 0)
    assert [event[:2] for event in await rows(pool, EVENTS, run)] == [
        (1, "run.created"), (2, "run.lease_expired"), (3, "run.lease_expired"), (4, "run.finished"),
    ]  # fmt: skip


async def test_cancelled_run_ends_after_its_grace_or_with_its_lease(pool, seed, key, sweeper):
    answering, silent, orphan = [await seed.run(key) for _ in range(3)]
    for run, lease, asked_ago in ((answering, 60, 29), (silent, 60, 31), (orphan, 0, 1)):
        await execute(pool, LEASED, run, 1, lease)
        await execute(pool, CANCELLED_AGO, run, asked_ago)
    await sweeper.round()
    assert [(await run_of(pool, run))["status"] for run in (answering, silent, orphan)] == [
        "running", "cancelled", "cancelled",
    ]  # fmt: skip
    assert (await last_event(pool, silent))[2] == '{"status":"cancelled","output":null,"error":null}'


async def test_run_with_nothing_to_do_gets_its_next_moment_and_is_left_alone_until_then(
    pool, seed, key, sweeper, told
):
    leased, working, waiting = await seed.run(key), await seed.run(key, status="running"), await seed.run(key)
    await execute(pool, LEASED, leased, 1, 50)
    await execute(pool, "DELETE FROM outbox")
    await sweeper.round()
    due = "SELECT due_at = lease_expires_at, due_at = last_event_at + interval '1 hour', due_at = deadline_at FROM run WHERE run_id = $1"
    assert [(await rows(pool, due, run))[0] for run in (leased, working, waiting)] == [
        (True, False, False), (None, True, False), (None, False, True),
    ]  # fmt: skip
    await sweeper.round()
    assert told.count("juinie_sweep_runs_total", verdict="later") == 3
    assert await rows(pool, "SELECT * FROM outbox") == []


async def test_row_that_older_code_left_due_is_looked_at_once(pool, seed, key, sweeper, told):
    finished, deleted = await seed.run(key, status="success"), await seed.run(key, status="error")
    await seed.delete(deleted)
    assert not (await run_of(pool, finished))["done"]
    await sweeper.round()
    await sweeper.round()
    assert [(await run_of(pool, run))["done"] for run in (finished, deleted)] == [True, True]
    assert told.count("juinie_sweep_runs_total", verdict="over") == 2
    assert (await last_event(pool, finished))[:2] == (3, "run.finished")


async def test_longest_due_comes_first_and_what_is_not_due_not_at_all(pool, seed, key):
    young, old, later = [await seed.run(key, status="running") for _ in range(3)]
    await execute(pool, "UPDATE run SET due_at = due_at - interval '1 minute' WHERE run_id = $1", old)
    await execute(pool, NOT_DUE, later)
    store, seen = DueRunStore(pool), []

    def refuse(runs):
        seen.append([run.run_id for run in runs])
        raise LookupError

    for batch in (1, 10):
        with pytest.raises(LookupError):
            await store.sweep(batch, refuse)
    assert seen == [[old], [old, young]]


async def test_run_with_a_writer_is_left_to_it_and_judged_as_the_writer_left_it(
    pool, seed, key, sweeper, told
):
    renewed, other = await seed.run(key), await seed.run(key, status="running")
    await execute(pool, LEASED, renewed, 1, 0)
    await execute(pool, IDLE, other)
    async with pool.transaction() as heartbeat:
        await heartbeat.execute("UPDATE run SET lease_expires_at = clock_timestamp() + interval '1 hour' WHERE run_id = $1", renewed)  # fmt: skip
        await sweeper.round()
        assert (await run_of(pool, other))["status"] == "error"
    await sweeper.round()
    standing = await run_of(pool, renewed)
    assert (standing["status"], standing["last_seq"], standing["lease"]) == ("running", 1, 4)
    assert told.count("juinie_sweep_runs_total", verdict="later") == 1


async def test_run_that_is_being_republished_is_swept_meanwhile(pool, seed, key, sweeper):
    run = await seed.run(key, status="running")
    await execute(pool, LATE, run)
    async with pool.transaction() as republish:
        await republish.execute("SELECT FROM run WHERE run_id = $1 FOR KEY SHARE", run)
        await sweeper.round()
        assert (await run_of(pool, run))["status"] == "timeout"


async def test_two_sweepers_end_each_run_once_beside_writers(pool, seed, key, sweeper):
    runs = [await seed.run(key) for _ in range(60)]
    for run in runs:
        await execute(pool, LEASED, run, 1, 0)

    async def sweep():
        for _ in range(4):
            await sweeper.round()

    async def write():
        for run in runs:
            await seed.append(run, ("token", 1))

    await asyncio.gather(sweep(), sweep(), write())
    await sweeper.round()
    for run in runs:
        events = await rows(pool, EVENTS, run)
        assert [event[0] for event in events] == [1, 2, 3], "no seq missing or given twice"
        assert sorted(event[1] for event in events) == ["run.created", "run.lease_expired", "token"]
        assert (await run_of(pool, run))["last_seq"] == 3
    ranges = await rows(pool, "SELECT run_id, first_seq, last_seq FROM outbox ORDER BY id")
    assert {run: [pair[1:] for pair in ranges if pair[0] == run] for run in runs} == {
        run: [(1, 1), (2, 2), (3, 3)] for run in runs
    }


async def test_run_whose_rows_contradict_themselves_is_put_off_and_holds_up_no_other(
    pool, seed, key, sweeper, told
):
    bad, good = await seed.run(key, status="running"), await seed.run(key, status="running")
    await execute(pool, "INSERT INTO run_event VALUES ($1, 3, 'token', 'null')", bad)  # ahead of last_seq
    for run in (bad, good):
        await execute(pool, IDLE, run)
    await sweeper.round()
    assert (await run_of(pool, good))["status"] == "error"
    standing = await run_of(pool, bad)
    assert (standing["status"], standing["last_seq"]) == ("running", 2), "nothing is left of what failed"
    assert told.count("juinie_sweep_failures_total") == 1
    put_off = "SELECT due_at BETWEEN clock_timestamp() + interval '50 s' AND clock_timestamp() + interval '60 s' FROM run WHERE run_id = $1"
    assert await rows(pool, put_off, bad) == [(True,)]


async def test_who_waits_is_notified_after_the_commit(database_url, pool, seed, key, sweeper):
    run, told = await seed.run(key, status="running"), []
    listening = await connect(database_url, "test")
    try:
        await listening.add_listener(OUTBOX_CHANNEL, lambda *_: told.append(True))
        await sweeper.round()
        assert not told, "nothing was written"
        await execute(pool, IDLE, run)
        await execute(pool, "UPDATE run SET due_at = clock_timestamp()")
        await sweeper.round()
        await eventually(lambda: told, 10, "a notification")
    finally:
        await listening.close()


async def test_who_cannot_be_notified_is_told_and_the_sweep_stands(pool, seed, key):
    run = await seed.run(key, status="running")
    await execute(pool, LATE, run)

    class WithoutNotify:
        transaction = staticmethod(pool.transaction)

        def connection(self):
            raise DatabaseBusy

    told = []
    sweeper = DueRunStore(WithoutNotify(), told.append)
    assert (
        await sweeper.sweep(10, decide=lambda runs: Decision([judge(run, Rules())[1] for run in runs])) == 1
    )
    assert [type(error) for error in told] == [DatabaseBusy]
    assert (await run_of(pool, run))["status"] == "timeout"


async def test_overdue_runs_are_counted_until_they_are_swept(pool, seed, key, sweeper):
    store = DueRunStore(pool)
    runs = [await seed.run(key, status="running") for _ in range(3)]
    await execute(pool, "UPDATE run SET due_at = due_at - interval '1 minute' WHERE run_id <> $1", runs[0])
    assert await store.count_overdue(5) == 2
    await sweeper.round()
    assert await store.count_overdue(5) == 0


async def test_due_runs_are_found_by_their_index(pool):
    async with pool.transaction() as tx:
        await tx.execute("SET LOCAL enable_seqscan = off")
        plan = "\n".join(
            row["QUERY PLAN"] for row in await tx.fetch(f"EXPLAIN {TAKE_DUE.replace('$1', '10')}")
        )
    assert "run_due_idx" in plan
    assert re.search(r"Index Cond: \(due_at <= ", plan), "the clock is a bound of the index, not a filter"


async def test_run_that_is_gone_meanwhile_is_nothing_to_sweep(pool):
    store = DueRunStore(pool)
    assert await store.sweep_one(new_uuid7(), lambda _: pytest.fail("nothing to decide")) == 0
