"""The desk with a database that does as it is told: who is asked for, when, and what the others hear of it."""

import asyncio
from collections import defaultdict
from collections.abc import AsyncGenerator, Iterable
from types import SimpleNamespace
from typing import Any
from uuid import UUID

import pytest

from juinie_api import telemetry
from juinie_api.core import desk as desk_module
from juinie_api.core import wanted as wanted_module
from juinie_api.core.claim import Claim, Claimant, Waiting
from juinie_api.core.desk import ClaimDesk
from juinie_shared.domain.errors import DatabaseAway, DatabaseBusy, TooManyWaiting
from juinie_shared.domain.ids import TenantId
from juinie_testkit.waits import eventually

TENANT, OTHER = TenantId(UUID(int=1)), TenantId(UUID(int=2))


class Database:
    """Runs that wait, by tenant and agent. `gate` holds claims back, `sight` looks, `faults` are raised one after the other."""

    def __init__(self) -> None:
        self.runs: dict[Waiting, list[Any]] = defaultdict(list)
        self.locked = False
        self.takes, self.looks = list[str](), list[set[Waiting]]()
        self.given_back = list[Any]()
        self.reports, self.faults = list[str](), list[Exception]()
        self.at_once = self.most_at_once = 0
        self.gate, self.sight = asyncio.Event(), asyncio.Event()
        self.gate.set()
        self.sight.set()

    async def take(self, claim: Claim) -> Any:
        self.takes.append(claim.claimant.worker_id)
        self.at_once += 1
        self.most_at_once = max(self.most_at_once, self.at_once)
        fault = self.faults.pop(0) if self.faults else None
        found = None if self.locked or fault else self._first(claim)  # a snapshot, as a statement has one
        try:
            await asyncio.sleep(0)
            await self.gate.wait()
            if fault:
                raise fault
            return found
        finally:
            self.at_once -= 1

    def _first(self, claim: Claim) -> Any:
        found = next((runs for agent in claim.agents if (runs := self.runs[claim.tenant_id, agent])), None)
        return found.pop(0) if found else None

    async def give_back(self, claimed: Any) -> None:
        self.given_back.append(claimed)

    async def find_pending(self, pairs: Iterable[Waiting]) -> set[Waiting]:
        self.looks.append(set(pairs))
        await self.sight.wait()
        if self.faults:
            raise self.faults.pop(0)
        return {pair for pair in self.looks[-1] if self.runs[pair]}


@pytest.fixture
def database() -> Database:
    return Database()


@pytest.fixture
async def desk(database: Database, monkeypatch: pytest.MonkeyPatch) -> AsyncGenerator[ClaimDesk]:
    monkeypatch.setattr(desk_module, "POLL_SECONDS", 60.0)
    made = ClaimDesk(database.take, database.give_back, database.find_pending, database.reports.append)
    running = asyncio.create_task(made.run())
    yield made
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)


async def stays() -> bool:
    return False


def sit(
    desk: ClaimDesk, worker: str, *agents: str, tenant: TenantId = TENANT, wait: float = 60, left: Any = stays
) -> asyncio.Task[Any]:
    claim = Claim(tenant, agents or ("a",), Claimant(worker, 30))
    return asyncio.create_task(desk.claim(claim, wait, left))


async def until_idle(desk: ClaimDesk, database: Database, workers: int) -> None:
    """Wait until so many wait and no clerk is at work."""
    await eventually(
        lambda: desk.waiting == workers and not database.at_once and database.takes,
        10,
        f"{workers} idle workers",
    )


async def test_two_hundred_who_come_at_once_cost_one_claim(desk: ClaimDesk, database: Database):
    workers = [sit(desk, f"w{n}") for n in range(200)]
    await until_idle(desk, database, 200)
    assert database.takes == ["w0"]
    desk.drain()
    assert await asyncio.gather(*workers) == [None] * 200


async def test_who_does_not_wait_is_asked_for_all_the_same(desk: ClaimDesk, database: Database):
    waiting = sit(desk, "waits")
    await until_idle(desk, database, 1)
    database.runs[TENANT, "a"] = ["run"]
    assert await sit(desk, "asks", wait=0) is None
    assert await waiting == "run", "who waited before was first"
    assert await sit(desk, "again", wait=0) is None
    assert database.takes == ["waits", "waits", "asks", "again"]


async def test_a_run_wakes_the_first_and_leaves_the_others(desk: ClaimDesk, database: Database):
    workers = [sit(desk, f"w{n}") for n in range(50)]
    await until_idle(desk, database, 50)
    database.takes.clear()
    database.runs[TENANT, "a"] = ["run"]
    desk.look_soon()
    assert await workers[0] == "run"
    await until_idle(desk, database, 49)
    assert database.takes == ["w0", "w1"], "one for the run, and one that finds that there is no other"
    assert not any(worker.done() for worker in workers[1:])


async def test_one_look_asks_for_everybody(desk: ClaimDesk, database: Database):
    workers = [sit(desk, "1", "a", "b", "a"), sit(desk, "2", "b", "a"), sit(desk, "3", "c", tenant=OTHER)]
    await until_idle(desk, database, 3)
    database.runs[OTHER, "c"], database.runs[TENANT, "c"] = ["theirs"], ["nobody's"]
    desk.look_soon()
    assert await workers[2] == "theirs"
    assert database.looks[0] == {(TENANT, "a"), (TENANT, "b"), (OTHER, "c")}


async def test_nobody_waits_and_nobody_looks(desk: ClaimDesk, database: Database):
    desk.look_soon()
    assert await sit(desk, "w", wait=0) is None
    assert database.looks == []
    assert desk.waiting == 0


async def test_claims_take_no_more_connections_than_there_are_clerks(desk: ClaimDesk, database: Database):
    database.runs[TENANT, "a"] = list(range(1, 41))
    answers = await asyncio.gather(*(sit(desk, f"w{n}", wait=0) for n in range(40)))
    assert sorted(answers) == list(range(1, 41))
    assert database.most_at_once == desk_module.CLERKS


async def test_a_full_queue_does_not_hold_up_another(desk: ClaimDesk, database: Database):
    database.runs[TENANT, "a"] = list(range(1, 1001))
    many = [sit(desk, f"w{n}") for n in range(1000)]
    database.runs[OTHER, "b"] = ["other"]
    assert await sit(desk, "other", "b", tenant=OTHER) == "other"
    assert database.takes.index("other") < 10
    await asyncio.gather(*many)


async def test_what_became_pending_during_a_try_is_looked_for_again(desk: ClaimDesk, database: Database):
    database.gate.clear()
    worker = sit(desk, "w")
    await eventually(lambda: database.at_once, 10, "a try that is under way")
    database.runs[TENANT, "a"] = ["run"]
    desk.look_soon()
    await eventually(lambda: database.looks, 10, "a look meanwhile")
    database.gate.set()
    assert await worker == "run"


async def test_a_run_that_somebody_has_locked_is_tried_again(desk: ClaimDesk, database: Database):
    worker = sit(desk, "w")
    await until_idle(desk, database, 1)
    database.runs[TENANT, "a"], database.locked = ["run"], True
    desk.look_soon()
    await eventually(lambda: len(database.takes) > 3, 10, "one try after the other")
    database.locked = False
    assert await worker == "run"


async def test_the_time_of_one_who_is_being_served_does_not_end(desk: ClaimDesk, database: Database):
    database.gate.clear()
    database.runs[TENANT, "a"] = ["run"]
    worker = sit(desk, "w", wait=0.01)
    await eventually(lambda: database.at_once, 10, "a try that is under way")
    loop = asyncio.get_running_loop()
    loop.call_later(0.1, database.gate.set)  # past its time
    assert await worker == "run"


async def test_no_run_is_taken_for_one_who_has_left(desk: ClaimDesk, database: Database):
    gone = asyncio.Event()

    async def left() -> bool:
        return gone.is_set()

    first, second = sit(desk, "gone", left=left), sit(desk, "here")
    await until_idle(desk, database, 2)
    gone.set()
    database.runs[TENANT, "a"] = ["run"]
    desk.look_soon()
    assert (await first, await second) == (None, "run")


async def test_a_run_of_one_who_left_while_it_was_taken_is_given_back(desk: ClaimDesk, database: Database):
    gone = asyncio.Event()

    async def left() -> bool:
        return gone.is_set()

    database.gate.clear()
    database.runs[TENANT, "a"] = ["run"]
    worker = sit(desk, "gone", left=left)
    await eventually(lambda: database.at_once, 10, "a try that is under way")
    gone.set()
    database.gate.set()
    assert await worker is None
    assert (database.given_back, database.reports) == (["run"], [telemetry.CLAIM_UNDELIVERED])


@pytest.mark.parametrize("wait", [0, 60])
async def test_a_run_that_was_taken_too_late_for_its_worker_is_given_back(
    desk: ClaimDesk, database: Database, monkeypatch: pytest.MonkeyPatch, wait: float
):
    monkeypatch.setattr(desk_module, "ANSWER_SECONDS", 0.05)
    database.gate.clear()
    database.runs[TENANT, "a"] = ["run"]
    with pytest.raises(DatabaseBusy):
        await sit(desk, "w", wait=wait)
    assert database.takes == ["w"]
    database.gate.set()
    await eventually(lambda: database.given_back == ["run"], 10, "the run given back")


async def test_a_full_pool_makes_them_wait_and_refuses_nobody(desk: ClaimDesk, database: Database):
    database.runs[TENANT, "a"] = [1, 2]
    database.faults = [DatabaseBusy(), DatabaseBusy()]
    assert [await sit(desk, "w1"), await sit(desk, "w2", wait=0)] == [1, 2]
    assert database.takes == ["w1", "w1", "w1", "w2"]


async def test_a_pool_that_stays_full_is_told_in_time(
    desk: ClaimDesk, database: Database, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(desk_module, "ANSWER_SECONDS", 0.3)
    database.faults = [DatabaseBusy() for _ in range(1000)]
    with pytest.raises(DatabaseBusy):
        await sit(desk, "w")
    assert desk.waiting == 0


async def test_a_database_that_is_away_is_everybodys_answer(desk: ClaimDesk, database: Database):
    database.faults, workers = [DatabaseAway()], [sit(desk, f"w{n}") for n in range(20)]
    answers = await asyncio.gather(*workers, return_exceptions=True)
    assert {type(answer) for answer in answers} == {DatabaseAway}
    assert database.takes == ["w0"]


async def test_a_fault_of_ours_is_one_workers_answer(desk: ClaimDesk, database: Database):
    database.faults = [ValueError()]
    with pytest.raises(ValueError):
        await sit(desk, "w", wait=0)
    database.runs[TENANT, "a"] = ["run"]
    assert await sit(desk, "w", wait=0) == "run", "and the clerks go on"


async def test_a_look_that_fails_is_told_and_repeated(desk: ClaimDesk, database: Database):
    worker = sit(desk, "w")
    await until_idle(desk, database, 1)
    database.runs[TENANT, "a"] = ["run"]
    database.faults = [DatabaseAway()]
    desk.look_soon()
    await eventually(lambda: database.reports, 10, "a report")
    desk.look_soon()
    assert await worker == "run"
    assert database.reports == [telemetry.CLAIM_LOOK_FAILED]


async def test_a_database_that_stays_away_is_told_to_who_waits_already(desk: ClaimDesk, database: Database):
    workers = [sit(desk, f"w{n}") for n in range(3)]
    await until_idle(desk, database, 3)
    for failed in (1, 2):
        database.faults = [DatabaseAway()]
        desk.look_soon()
        await eventually(lambda failed=failed: len(database.reports) == failed, 10, "a look that fails")
    answers = await asyncio.gather(*workers, return_exceptions=True)
    assert {type(answer) for answer in answers} == {DatabaseAway}
    assert desk.waiting == 0


async def test_a_database_that_hangs_is_told_to_who_waits_already(
    desk: ClaimDesk, database: Database, monkeypatch: pytest.MonkeyPatch
):
    """One look meets it in the middle, and those that follow find no connection: as when all of them are lent."""
    now = 0.0
    monkeypatch.setattr(desk_module, "time", SimpleNamespace(monotonic=lambda: now))
    workers = [sit(desk, f"w{n}") for n in range(3)]
    await until_idle(desk, database, 3)
    moments = (0.0, 0.1, desk_module.ANSWER_SECONDS - 0.1, desk_module.ANSWER_SECONDS)
    for failed, now in enumerate(moments, 1):  # noqa: B007 - the desk's clock
        assert not any(worker.done() for worker in workers)
        database.faults = [DatabaseAway() if failed == 1 else DatabaseBusy()]
        desk.look_soon()
        await eventually(lambda failed=failed: len(database.reports) == failed, 10, "a look that fails")
    answers = await asyncio.gather(*workers, return_exceptions=True)
    assert {type(answer) for answer in answers} == {DatabaseBusy}


async def test_a_look_that_hangs_is_told_before_it_is_over(
    desk: ClaimDesk, database: Database, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(desk_module, "LOOK_SECONDS", 0.05)
    workers = [sit(desk, f"w{n}") for n in range(3)]
    await until_idle(desk, database, 3)
    database.sight.clear()
    desk.look_soon()
    answers = await asyncio.gather(*workers, return_exceptions=True)
    assert {type(answer) for answer in answers} == {DatabaseBusy}
    assert (len(database.looks), database.reports) == (1, [])  # it still goes on
    database.runs[TENANT, "a"] = ["run"]
    worker = sit(desk, "next")
    database.sight.set()
    assert await worker == "run"


async def test_a_full_pool_now_and_then_is_told_to_nobody(
    desk: ClaimDesk, database: Database, monkeypatch: pytest.MonkeyPatch
):
    now = 0.0
    monkeypatch.setattr(desk_module, "time", SimpleNamespace(monotonic=lambda: now))
    worker = sit(desk, "w")
    await until_idle(desk, database, 1)
    for looks, now in enumerate((0.0, 3.0, 6.0, 9.0), 1):  # noqa: B007 - the desk's clock
        database.faults = [DatabaseBusy()] if looks != 2 else []
        desk.look_soon()
        await eventually(lambda looks=looks: len(database.looks) == looks, 10, "a look")
    database.runs[TENANT, "a"] = ["run"]
    desk.look_soon()
    assert await worker == "run"


async def test_who_is_being_served_while_looks_fail_is_tried_again(desk: ClaimDesk, database: Database):
    database.gate.clear()
    database.faults = [DatabaseBusy()]
    worker = sit(desk, "w")
    await eventually(lambda: database.takes, 10, "a try")
    for failed in (1, 2):
        database.faults = [DatabaseAway()]
        desk.look_soon()
        await eventually(lambda failed=failed: len(database.reports) == failed, 10, "a look that fails")
    database.runs[TENANT, "a"] = ["run"]
    database.gate.set()
    assert await worker == "run"
    assert database.takes == ["w", "w"]


@pytest.mark.parametrize("fault", [DatabaseAway(), DatabaseBusy()], ids=["away", "busy"])
async def test_who_joins_others_while_looks_fail_is_asked_for(
    desk: ClaimDesk, database: Database, fault: Exception
):
    first = sit(desk, "first")
    await until_idle(desk, database, 1)
    database.faults = [fault]
    desk.look_soon()
    await eventually(lambda: database.reports, 10, "a look that fails")
    database.faults = [DatabaseAway()]
    second = sit(desk, "second")
    with pytest.raises(DatabaseAway):
        await second
    with pytest.raises(DatabaseAway):
        await first
    assert database.takes == ["first", "first"], "in the name of who waits for longest"


async def test_who_joins_others_after_a_look_that_failed_waits_like_them_once_one_went_well(
    desk: ClaimDesk, database: Database
):
    sit(desk, "first")
    await until_idle(desk, database, 1)
    database.faults = [DatabaseAway()]
    for looks in (1, 2):
        desk.look_soon()
        await eventually(lambda looks=looks: len(database.looks) == looks, 10, "a look")
    sit(desk, "second")
    await until_idle(desk, database, 2)
    assert database.takes == ["first"]


async def test_a_stopping_desk_serves_who_is_being_served_and_lets_the_others_go(
    desk: ClaimDesk, database: Database
):
    database.gate.clear()
    database.runs[TENANT, "a"] = ["run"]
    workers = [sit(desk, f"w{n}") for n in range(10)]
    await eventually(lambda: database.at_once, 10, "a try that is under way")
    desk.drain()
    assert await workers[9] is None
    database.gate.set()
    answers = await asyncio.gather(*workers)
    assert answers == ["run", *[None] * 9]
    assert await sit(desk, "late") is None


async def test_who_is_cancelled_leaves_nothing_behind(desk: ClaimDesk, database: Database):
    workers = [sit(desk, f"w{n}") for n in range(10)]
    await until_idle(desk, database, 10)
    for worker in workers:
        worker.cancel()
    await asyncio.gather(*workers, return_exceptions=True)
    assert desk.waiting == 0
    database.runs[TENANT, "a"] = ["run"]
    assert await sit(desk, "w", wait=0) == "run"


def few_pairs(monkeypatch: pytest.MonkeyPatch, *, tenant: int, batch: int) -> None:
    monkeypatch.setattr(wanted_module, "TENANT_PAIRS", tenant)
    monkeypatch.setattr(wanted_module, "BATCH_PAIRS", batch)


async def test_a_tenant_waits_for_so_many_agents_and_no_more(
    desk: ClaimDesk, database: Database, monkeypatch: pytest.MonkeyPatch
):
    few_pairs(monkeypatch, tenant=5, batch=100)
    workers = [sit(desk, "1", "a", "b", "c"), sit(desk, "2", "a", "d"), sit(desk, "3", "c", "b", "a", "a")]
    await until_idle(desk, database, 3)
    with pytest.raises(TooManyWaiting):
        await sit(desk, "4", "a")
    assert await sit(desk, "asks", "e", "f", wait=0) is None, "who does not wait takes no place"
    other = sit(desk, "5", "a", "b", "c", tenant=OTHER)
    workers.append(sit(desk, "6", "d", "a"))
    await until_idle(desk, database, 5)
    workers[1].cancel()
    workers.pop().cancel()
    await until_idle(desk, database, 3)
    workers[1] = sit(desk, "7", "e", "f")
    await until_idle(desk, database, 4)
    desk.drain()
    assert await asyncio.gather(*workers, other) == [None] * 4


async def test_looks_are_cut_into_batches_and_tenants_take_turns(
    desk: ClaimDesk, database: Database, monkeypatch: pytest.MonkeyPatch
):
    few_pairs(monkeypatch, tenant=1000, batch=10)
    for n in range(20):
        sit(desk, "many", f"{n} a", f"{n} b", f"{n} c")
    sit(desk, "one", "x", tenant=OTHER)
    await until_idle(desk, database, 21)
    database.looks.clear()
    desk.look_soon()
    await eventually(lambda: sum(map(len, database.looks)) >= 61, 10, "a whole look")
    first, *rest = database.looks
    assert (OTHER, "x") in first
    assert max(map(len, database.looks)) <= 12
    assert len(first.union(*rest)) == sum(map(len, database.looks)) == 61, "each once"


async def test_a_batch_that_fails_is_nobody_elses_failure(
    desk: ClaimDesk, database: Database, monkeypatch: pytest.MonkeyPatch
):
    few_pairs(monkeypatch, tenant=1000, batch=1)
    workers = [sit(desk, agent, agent) for agent in ("a", "b")]
    await until_idle(desk, database, 2)
    database.runs[TENANT, "b"] = ["run"]
    database.faults = [DatabaseBusy()]
    desk.look_soon()
    assert await workers[1] == "run"
    assert database.reports == [telemetry.CLAIM_LOOK_FAILED]


async def test_many_queues_of_a_tenant_do_not_hold_up_another_tenant(desk: ClaimDesk, database: Database):
    for n in range(200):
        sit(desk, f"w{n}", f"agent {n}")
    database.runs[OTHER, "b"] = ["other"]
    assert await sit(desk, "other", "b", tenant=OTHER) == "other"
    assert database.takes.index("other") < 10
