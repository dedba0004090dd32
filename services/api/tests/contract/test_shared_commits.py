"""Appends that share a commit: each is answered, and leaves behind, what it would have alone."""

import asyncio
import gc
import random
import time
import weakref
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from typing import Any, cast
from uuid import UUID, uuid4

import pytest

from juinie_api.core import group, patience
from juinie_api.core.append import Append, Appended, Once, OneByOne
from juinie_api.core.group import FLIGHT_APPENDS, FLIGHTS, LARGE_BYTES, Grouped
from juinie_api.core.lanes import RunLanes
from juinie_api.core.tenant_pools import TenantPools
from juinie_api.store.events import APPEND_MANY
from juinie_shared.db.pool import Pool, driver_errors
from juinie_shared.domain.errors import (
    DatabaseAway,
    DatabaseBusy,
    JuinieError,
    LeaseLost,
    NoConnection,
    RunFinished,
    RunLocked,
    RunNotFound,
)
from juinie_shared.domain.events import NewEvent
from juinie_shared.domain.ids import RunId, Seq, TenantId
from juinie_shared.domain.runs import RunStatus
from juinie_shared.domain.times import parse_time
from juinie_testkit.seed import Seed, SeededKey
from juinie_testkit.waits import eventually

LEASE = UUID("00000000-0000-4000-8000-00000000000a")
STATES = ("pending", "running", "leased", "requeued", "success", "deleted", "foreign", "unknown")
EXPIRED = (
    "UPDATE run SET lease_token = $2, lease_seconds = 30, lease_expires_at = '2026-01-01' WHERE run_id = $1"
)
REQUEUED = "UPDATE run SET status = 'pending', attempt = 1 WHERE run_id = $1"
DELETED = "UPDATE run SET deleted_at = clock_timestamp() WHERE run_id = $1"


def one_by_one(pool: Pool, wait_seconds: float = 60) -> OneByOne:
    return OneByOne(TenantPools(pool, 6), RunLanes(wait_seconds), lambda: None)


@asynccontextmanager
async def grouped(
    pool: Pool, wait_seconds: float = 60, *, alone: OneByOne | None = None, flights: int = FLIGHTS
) -> AsyncGenerator[Grouped]:
    """All that is committed before the first wait makes up one flight, as far as it fits."""
    appender = Grouped(pool, alone or one_by_one(pool, wait_seconds), lambda: None)
    flying = [asyncio.create_task(appender.fly()) for _ in range(flights)]
    try:
        yield appender
    finally:
        for task in flying:
            task.cancel()
        await asyncio.wait(flying)


async def outcome(commit: Any) -> Appended | type[Exception]:
    try:
        return await commit
    except JuinieError as error:
        return type(error)


async def make_runs(pool: Pool, key: SeededKey) -> list[RunId]:
    """One in each state."""
    seed, runs = Seed(pool), list[RunId]()
    for state in STATES:
        status = state if state in {"running", "success"} else "running" if state == "leased" else "pending"
        owner = await seed.key("other") if state == "foreign" else key
        run_id = RunId(uuid4()) if state == "unknown" else await seed.run(owner, status=status)
        async with pool.connection() as connection:
            if state == "leased":
                await connection.execute(EXPIRED, run_id, LEASE)
            elif state == "requeued":
                await connection.execute(REQUEUED, run_id)
            elif state == "deleted":
                await connection.execute(DELETED, run_id)
        runs.append(run_id)
    return runs


def some_appends(
    chance: random.Random, runs: Sequence[RunId], tenant_id: TenantId, count: int
) -> list[Append]:
    def once() -> Once | None:
        key = chance.choice([None, None, "a", "b", "c"])
        return key and Once(key, "append", chance.choice([b"1", b"1", b"2"]))  # type: ignore[return-value]

    times = chance.choice([[None], [None, parse_time("2026-01-02T03:04:05.678901Z")]])
    return [
        Append(
            chance.choice(runs),
            tenant_id,
            [
                NewEvent(f"t{number}", f'{{"{chance.choice("eé")}":{place}}}', chance.choice(times))
                for place in range(chance.randint(1, 3))
            ],
            starts=chance.random() < 0.7,
            lease=chance.choice([None, None, None, LEASE, UUID(int=1)]),
            once=once(),
            traceparent=chance.choice([None, f"00-{number:032x}-{number:016x}-01"]),
        )
        for number in range(1, count + 1)
    ]  # fmt: skip


async def what_is_left(pool: Pool, run_id: RunId) -> list[list[tuple[Any, ...]]]:
    """All rows of a run, without its id and without moments that no two tries have in common."""
    queries = [
        """SELECT status, last_seq, attempt, started_at IS NULL, lease_token, lease_expires_at > clock_timestamp(),
           last_event_at > created_at, due_at > clock_timestamp() FROM run WHERE run_id = $1""",
        """SELECT seq, type, data, occurred_at = '2026-01-02T03:04:05.678901Z' FROM run_event
           WHERE run_id = $1 AND seq > 1 ORDER BY seq""",
        "SELECT first_seq, last_seq, bytes, traceparent FROM outbox WHERE run_id = $1 AND first_seq > 1 ORDER BY id",
        """SELECT key, route, fingerprint, first_seq, last_seq, status, cancel_requested FROM append_key
           WHERE run_id = $1 ORDER BY key""",
    ]
    async with pool.connection() as connection:
        return [[tuple(row.values()) for row in await connection.fetch(query, run_id)] for query in queries]


@pytest.mark.parametrize("seed", range(12))
async def test_together_is_as_one_by_one(pool: Pool, seed: int):
    chance = random.Random(seed)
    key = await Seed(pool).key()
    here, there = await make_runs(pool, key), await make_runs(pool, key)
    appends = some_appends(chance, here, key.tenant_id, 60)
    twin = dict(zip(here, there, strict=True))
    ended = list[
        tuple[Append, Appended | type[Exception]]
    ]()  # which went first of those that came at once, shows at their end

    async def commit(append: Append) -> None:
        ended.append((append, await outcome(appender.commit(append))))

    async with grouped(pool) as appender:
        await asyncio.gather(*map(commit, appends))
    assert sum(isinstance(seen, Appended) for _, seen in ended) > 8
    alone = one_by_one(pool)
    for append, seen in ended:
        other = Append(twin[append.run_id], *(getattr(append, name) for name in Append.__slots__[1:]))
        assert await outcome(alone.commit(other)) == seen, append
    for run_id in here:
        assert await what_is_left(pool, run_id) == await what_is_left(pool, twin[run_id])


async def test_what_comes_at_once_is_one_commit(pool: Pool):
    key = await Seed(pool).key()
    runs = [await Seed(pool).run(key, status="running") for _ in range(20)]
    appends = [Append(run_id, key.tenant_id, [NewEvent("x", "1")]) for run_id in runs * 3]
    async with grouped(pool) as appender:
        await asyncio.gather(*(appender.commit(append) for append in appends))
    async with pool.connection() as connection:
        commits = await connection.fetch(
            "SELECT count(DISTINCT xmin::text) AS n FROM run_event WHERE type = 'x'"
        )
    assert len(appends) < FLIGHT_APPENDS
    assert commits[0]["n"] == 1


async def test_a_locked_run_holds_up_only_itself(pool: Pool):
    key = await Seed(pool).key()
    locked, *others = [await Seed(pool).run(key, status="running") for _ in range(10)]
    async with grouped(pool, wait_seconds=0.5) as appender, pool.transaction() as tx:
        await tx.execute("SET LOCAL idle_in_transaction_session_timeout = 0")
        await tx.execute("SELECT FROM run WHERE run_id = $1 FOR UPDATE", locked)
        waiting = asyncio.create_task(appender.commit(Append(locked, key.tenant_id, [NewEvent("x", "1")])))
        answers = await asyncio.gather(
            *(appender.commit(Append(run_id, key.tenant_id, [NewEvent("x", "1")])) for run_id in others)
        )
        assert [answer.first_seq for answer in answers] == [3] * 9
        assert not waiting.done()
        with pytest.raises(RunLocked):
            await waiting


async def test_who_names_another_tenants_run_locks_nothing(pool: Pool):
    """Nor does who is aboard beside its owner hold up, or write, anything of it."""
    key, other = await Seed(pool).key(), await Seed(pool).key("b")
    theirs, own = [await Seed(pool).run(owner, status="running") for owner in (key, other)]
    each = [[theirs, own], [other.tenant_id] * 2, [None] * 2, [True] * 2, [1] * 2, [1] * 2, *[[None] * 2] * 4]
    async with pool.transaction() as flight, pool.transaction() as owner:
        rows = await flight.fetch(APPEND_MANY, *each, [1, 2], "x,x", "1\n1", None, None)
        assert [row["place"] for row in rows] == [2]
        assert await owner.fetchval("SELECT 1 FROM run WHERE run_id = $1 FOR UPDATE NOWAIT", theirs) == 1
        with pytest.raises(RunLocked), driver_errors():
            await owner.fetchval("SELECT 1 FROM run WHERE run_id = $1 FOR UPDATE NOWAIT", own)


async def test_a_run_that_two_tenants_name_in_one_flight_is_its_owners(pool: Pool):
    key, other = await Seed(pool).key(), await Seed(pool).key("b")
    run_id = await Seed(pool).run(key, status="running")
    appends = [Append(run_id, tenant, [NewEvent("x", "1")]) for tenant in (other.tenant_id, key.tenant_id)]
    async with grouped(pool) as appender:
        refused, answer = await asyncio.gather(
            *(appender.commit(append) for append in appends), return_exceptions=True
        )
    assert isinstance(refused, RunNotFound)
    assert isinstance(answer, Appended)
    assert answer.first_seq == 3


async def test_one_that_cannot_be_written_fails_alone(pool: Pool):
    key = await Seed(pool).key()
    runs = [await Seed(pool).run(key, status="running") for _ in range(5)]
    appends = [Append(run_id, key.tenant_id, [NewEvent("x", "1")]) for run_id in runs]
    bad = Append(runs[0], key.tenant_id, [NewEvent("x", "\0")])  # nothing that an edge lets through
    async with grouped(pool) as appender:
        *answers, refused = await asyncio.gather(
            *(appender.commit(append) for append in appends), appender.commit(bad), return_exceptions=True
        )
    assert [answer.first_seq for answer in answers if isinstance(answer, Appended)] == [3] * 5
    assert isinstance(refused, Exception)


@pytest.mark.parametrize("event", [NewEvent("x,y", "1"), NewEvent("x", "[1,\n2]")], ids=["type", "data"])
async def test_what_would_shift_the_events_of_others_is_never_written(pool: Pool, event: NewEvent):
    """Nothing that an edge lets through."""
    key, other = await Seed(pool).key(), await Seed(pool).key("b")
    theirs, own = [await Seed(pool).run(owner, status="running") for owner in (key, other)]
    async with grouped(pool) as appender:
        await asyncio.gather(
            appender.commit(Append(theirs, key.tenant_id, [NewEvent("x", "1")])),
            appender.commit(Append(own, other.tenant_id, [event])),
            return_exceptions=True,
        )
    stored = await pool_rows(pool, theirs)
    assert stored in ([], [("x", "1")])


async def pool_rows(pool: Pool, run_id: RunId) -> list[tuple[str, str]]:
    async with pool.connection() as connection:
        rows = await connection.fetch(
            "SELECT type, data FROM run_event WHERE run_id = $1 AND type = 'x' ORDER BY seq", run_id
        )
    return [(row["type"], row["data"]) for row in rows]


REFUSAL = """
    CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN
        IF NEW.type = 'refused' THEN RAISE EXCEPTION 'as the server would' USING ERRCODE = '53100'; END IF;
        RETURN NEW;
    END $$
"""
REFUSE = "CREATE TRIGGER refuse BEFORE INSERT ON run_event FOR EACH ROW EXECUTE FUNCTION refuse()"


async def test_what_the_server_cannot_do_for_one_it_does_for_the_others(pool: Pool):
    key = await Seed(pool).key()
    runs = [await Seed(pool).run(key, status="running") for _ in range(5)]
    async with pool.connection() as connection:
        await connection.execute(REFUSAL)
        await connection.execute(REFUSE)
    appends = [
        Append(run_id, key.tenant_id, [NewEvent("x" if number else "refused", "1")])
        for number, run_id in enumerate(runs)
    ]
    async with grouped(pool) as appender:
        refused, *answers = await asyncio.gather(
            *(appender.commit(append) for append in appends), return_exceptions=True
        )
    assert isinstance(refused, DatabaseBusy | DatabaseAway)
    assert [answer.first_seq for answer in answers if isinstance(answer, Appended)] == [3] * 4


class Hangs:
    """A pool whose connections take a statement and say nothing more, as those to a server that hangs."""

    def __init__(self) -> None:
        self.asked = 0

    @asynccontextmanager
    async def connection(self) -> AsyncGenerator[Any]:
        yield self

    async def fetch(self, _query: str, *_values: object, timeout: float) -> Any:
        self.asked += 1
        await asyncio.sleep(0)
        raise TimeoutError(timeout)


async def test_a_server_that_hangs_is_told_to_all_aboard_and_nobody_goes_alone():
    hangs: Any = Hangs()
    nobody: Any = None
    appender = Grouped(hangs, nobody, lambda: None)
    waiting = [
        asyncio.create_task(
            appender.commit(Append(RunId(UUID(int=n)), TenantId(UUID(int=8)), [NewEvent("x", "1")]))
        )
        for n in range(3)
    ]
    await asyncio.sleep(0)
    flying = asyncio.create_task(appender.fly())
    answers = await asyncio.gather(*waiting, return_exceptions=True)
    assert [type(answer) for answer in answers] == [DatabaseAway] * 3
    assert hangs.asked == 1
    flying.cancel()


async def test_what_may_have_been_written_is_not_written_again_when_the_process_falls_over(pool: Pool):
    """Whatever ends the flights while the commit's answer is on its way: the append is told so, and its event is there once."""
    key, committed = await Seed(pool).key(), asyncio.Event()
    run_id = await Seed(pool).run(key)

    class AnswersLate:
        """The pool's connections; what they answer to a shared commit takes for ever."""

        @asynccontextmanager
        async def connection(self) -> AsyncGenerator[Any]:
            async with pool.connection() as connection:
                self._connection = connection
                yield self

        async def fetch(self, sql: str, *values: Any, timeout: float) -> Any:
            await self._connection.fetch(sql, *values, timeout=timeout)
            committed.set()
            await asyncio.Event().wait()

    late: Any = AnswersLate()
    appender = Grouped(late, one_by_one(pool), lambda: None)
    flying = asyncio.create_task(appender.fly())
    append = asyncio.create_task(appender.commit(Append(run_id, key.tenant_id, [NewEvent("once", "1")])))
    await committed.wait()
    flying.cancel()
    with pytest.raises(DatabaseAway):
        await append
    await asyncio.wait([flying])
    async with pool.connection() as connection:
        assert await connection.fetchval("SELECT count(*) FROM run_event WHERE type = 'once'") == 1


async def test_a_process_that_stood_still_writes_what_waited_meanwhile(pool: Pool):
    """Its clients have waited for long, and nobody but the process was slow."""
    key = await Seed(pool).key()
    run_id = await Seed(pool).run(key, status="running")
    async with grouped(pool) as appender:
        append = asyncio.create_task(appender.commit(Append(run_id, key.tenant_id, [NewEvent("x", "1")])))
        await asyncio.sleep(0)
        time.sleep(1.8)  # noqa: ASYNC251 - nothing of this process runs meanwhile
        assert (await append).first_seq == 3


class Alone(OneByOne):
    """Remembers what came to it, and writes nothing."""

    def __init__(self) -> None:
        self.came = list[Append]()

    async def commit(self, append: Append) -> Appended:
        self.came.append(append)
        return Appended(Seq(1), Seq(1), RunStatus.RUNNING, cancel_requested=False)


class Slow(Hangs):
    """Its statements write nothing, and are answered once `answers` is set; its connections are there once `connects` is."""

    def __init__(self) -> None:
        super().__init__()
        self.answers, self.connects = asyncio.Event(), asyncio.Event()

    @asynccontextmanager
    async def connection(self) -> AsyncGenerator[Any]:
        await self.connects.wait()
        yield self

    async def fetch(self, _query: str, *_values: object, timeout: float) -> Any:
        self.asked += 1
        async with asyncio.timeout(timeout):
            await self.answers.wait()
        return []


def append_of(number: int) -> Append:
    return Append(RunId(UUID(int=number)), TenantId(UUID(int=8)), [NewEvent("x", "1")])


def request(appender: Grouped, append: Append, waited_seconds: float) -> asyncio.Task[Appended]:
    """One that has waited for so long before it comes to wait for a flight."""

    async def commit() -> Appended:
        patience.begin()
        patience.excuse(-waited_seconds)
        return await appender.commit(append)

    return asyncio.create_task(commit())


async def test_whose_patience_ends_aboard_is_told_then_and_the_others_when_the_flight_is_back(
    monkeypatch: pytest.MonkeyPatch,
):
    monkeypatch.setattr(group, "FLIGHT_SECONDS", 60)
    pool, alone = Slow(), Alone()
    pool.connects.set()
    async with grouped(cast("Any", pool), alone=alone, flights=1) as appender:
        late, other = request(appender, append_of(1), 3.0), request(appender, append_of(2), 0.0)
        with pytest.raises(DatabaseAway):
            await late
        assert (pool.asked, other.done()) == (1, False)
        pool.answers.set()
        await other
        assert [append.run_id for append in alone.came] == [append_of(2).run_id]


async def test_whose_patience_ends_in_a_flight_that_is_written_again_is_told_then(
    monkeypatch: pytest.MonkeyPatch,
):
    """A deadlock made it start over: it is under way for longer than a statement may take."""
    monkeypatch.setattr(patience, "SECONDS", 1.5)
    monkeypatch.setattr(group, "FLIGHT_SECONDS", 0.3)
    monkeypatch.setattr(group, "LONGEST_FLIGHT_SECONDS", 60)

    class StartsOver(Slow):
        async def fetch(self, _query: str, *_values: object, timeout: float) -> Any:
            del timeout
            await self.answers.wait()
            return []

    pool, alone = StartsOver(), Alone()
    pool.connects.set()
    async with asyncio.timeout(10), grouped(cast("Any", pool), alone=alone, flights=1) as appender:
        with pytest.raises(DatabaseAway):
            await request(appender, append_of(1), 0.0)
        pool.answers.set()
    assert not alone.came


async def test_nobody_goes_aboard_whose_answer_would_come_too_late_by_what_flights_take(
    monkeypatch: pytest.MonkeyPatch,
):
    monkeypatch.setattr(group, "FLIGHT_SECONDS", 60)
    pool, alone = Slow(), Alone()
    pool.connects.set()
    async with grouped(cast("Any", pool), alone=alone, flights=1) as appender:
        measure = request(appender, append_of(1), 0.0)
        await asyncio.sleep(1.0)
        pool.answers.set()
        await measure
        with pytest.raises(DatabaseBusy):
            await request(appender, append_of(2), patience.SECONDS - 1.2)
        assert pool.asked == 1
        await request(appender, append_of(3), 0.0)
        assert pool.asked == 2


async def test_nothing_is_kept_of_who_was_told_while_no_flight_leaves():
    class Text(str):  # noqa: SLOT000 - a weak reference can be had of it
        pass

    data = Text("1")
    kept = weakref.ref(data)
    async with grouped(cast("Any", Slow()), alone=Alone(), flights=1) as appender:
        append = Append(RunId(UUID(int=1)), TenantId(UUID(int=8)), [NewEvent("x", data)])
        told = request(appender, append, patience.SECONDS - 0.3)
        await asyncio.wait({told})
        assert isinstance(told.exception(), DatabaseBusy)
        del data, append, told

        def is_gone() -> bool:
            gc.collect()
            return kept() is None

        await eventually(is_gone, 10, "nobody has it any more")


async def test_one_long_flight_is_no_measure_that_keeps_all_others_on_the_ground(
    monkeypatch: pytest.MonkeyPatch,
):
    """Of a process that stood still in the first one: with nobody aboard, nothing would be measured again."""
    monkeypatch.setattr(patience, "SECONDS", 2.0)
    monkeypatch.setattr(group, "FLIGHT_SECONDS", 0.5)

    class StandsStill(Slow):
        async def fetch(self, _query: str, *_values: object, timeout: float) -> Any:
            del timeout
            if not alone.came:
                time.sleep(1.7)  # noqa: ASYNC251 - nothing of this process runs meanwhile
            return []

    pool, alone = StandsStill(), Alone()
    pool.connects.set()
    async with grouped(cast("Any", pool), alone=alone, flights=1) as appender:
        for number in range(2):
            await request(appender, append_of(number), 0.0)
        assert len(alone.came) == 2


async def test_a_flight_that_gets_no_connection_in_time_leaves_those_who_wait_to_the_others():
    class OneLine(Slow):
        @asynccontextmanager
        async def connection(self) -> AsyncGenerator[Any]:
            if asyncio.current_task() is without:
                await self.connects.wait()
                self.connects.clear()
                raise NoConnection
            async with has_one:
                yield self

    has_one = asyncio.Semaphore(0)
    pool, alone = OneLine(), Alone()
    pool.answers.set()
    appender = Grouped(cast("Any", pool), alone, lambda: None)
    without, other = (asyncio.create_task(appender.fly()) for _ in range(2))
    waits = request(appender, append_of(1), 0.0)
    await asyncio.sleep(0.1)
    pool.connects.set()
    await asyncio.sleep(0.1)
    assert not waits.done()
    has_one.release()
    await waits
    without.cancel()
    other.cancel()


async def test_whose_patience_ends_before_there_is_a_connection_is_told_that_nothing_is_written():
    pool, alone = Slow(), Alone()
    pool.answers.set()
    async with grouped(cast("Any", pool), alone=alone, flights=1) as appender:
        late, other = request(appender, append_of(1), 3.6), request(appender, append_of(1), 0.0)
        with pytest.raises(DatabaseBusy):
            await late
        assert (pool.asked, other.done()) == (0, False)
        pool.connects.set()
        await other
        assert (pool.asked, len(alone.came)) == (1, 1)


async def test_whoever_leaves_before_the_flight_writes_nothing(pool: Pool):
    key = await Seed(pool).key()
    run_id = await Seed(pool).run(key, status="running")
    appender = Grouped(pool, one_by_one(pool), lambda: None)
    left, stays = (
        asyncio.create_task(appender.commit(Append(run_id, key.tenant_id, [NewEvent(name, "1")])))
        for name in ("left", "stays")
    )
    await asyncio.sleep(0)
    left.cancel()
    await asyncio.wait({left})
    flying = asyncio.create_task(appender.fly())
    assert (await stays).first_seq == 3
    flying.cancel()
    async with pool.connection() as connection:
        assert await connection.fetchval("SELECT count(*) FROM run_event WHERE type = 'left'") == 0


@pytest.mark.parametrize(
    ("append", "error"),
    [
        (Append(RunId(UUID(int=7)), TenantId(UUID(int=8)), [NewEvent("x", "1")]), RunNotFound),
        (
            Append(RunId(UUID(int=7)), TenantId(UUID(int=8)), [NewEvent("x", "1" * (LARGE_BYTES + 1))]),
            RunNotFound,
        ),
    ],
    ids=["small", "large"],
)
async def test_refusals_come_as_they_do_alone(pool: Pool, append: Append, error: type[Exception]):
    async with grouped(pool) as appender:
        with pytest.raises(error):
            await appender.commit(append)


async def test_an_end_in_between_is_seen(pool: Pool):
    """Of appends that wait while their run ends, none is written behind the end."""
    key = await Seed(pool).key()
    run_id = await Seed(pool).run(key, status="running")
    appender = Grouped(pool, one_by_one(pool), lambda: None)
    waiting = [
        asyncio.create_task(appender.commit(Append(run_id, key.tenant_id, [NewEvent("x", "1")])))
        for _ in range(3)
    ]
    await asyncio.sleep(0)
    await Seed(pool).finish(run_id)
    flying = asyncio.create_task(appender.fly())
    assert [type(error) for error in await asyncio.gather(*waiting, return_exceptions=True)] == [
        RunFinished
    ] * 3
    flying.cancel()


async def test_a_lease_that_was_lost_while_its_append_waited_is_refused(pool: Pool):
    key = await Seed(pool).key()
    run_id = await Seed(pool).run(key, status="running")
    async with pool.connection() as connection:
        await connection.execute(EXPIRED, run_id, LEASE)
        appender = Grouped(pool, one_by_one(pool), lambda: None)
        waiting = asyncio.create_task(
            appender.commit(Append(run_id, key.tenant_id, [NewEvent("x", "1")], lease=LEASE))
        )
        await asyncio.sleep(0)
        await connection.execute(EXPIRED, run_id, UUID(int=3))
    flying = asyncio.create_task(appender.fly())
    with pytest.raises(LeaseLost):
        await waiting
    flying.cancel()
