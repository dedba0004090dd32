"""A request waits for the database for less than 5 s in all, however many waits it is that come in a row."""

import asyncio
import math
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any
from uuid import UUID

import pytest

from juinie_api.core import desk, group, patience, tenant_pools
from juinie_api.core.append import Append, Appended, OneByOne
from juinie_api.core.claim import Claim, Claimant
from juinie_api.core.group import Grouped
from juinie_api.core.lanes import RunLanes
from juinie_api.core.republish import STATEMENT_SEQS, Republisher, Span
from juinie_api.core.tenant_pools import TenantPools
from juinie_api.core.waker import Waker
from juinie_api.edges.admission import Admission
from juinie_shared.db import again
from juinie_shared.db.pool import Pool
from juinie_shared.domain.errors import DatabaseAway, DatabaseBusy, RunLocked
from juinie_shared.domain.ids import RunId, Seq, TenantId
from juinie_shared.domain.runs import RunStatus
from juinie_shared.runtime import keys

PROMISED_SECONDS = 5
RUN, TENANT = RunId(UUID(int=1)), TenantId(UUID(int=2))


class Lent:
    """A connection of a database that says nothing, until it is cut off."""

    def __init__(self) -> None:
        self.cut_off = asyncio.Event()

    def terminate(self) -> None:
        self.cut_off.set()

    async def fetch(self, *_args: object) -> None:
        await self.cut_off.wait()
        raise DatabaseAway


class OnePool(Pool):
    """Lends one connection to whoever asks, and counts who has."""

    def __init__(self) -> None:
        self.lent = Lent()
        self.asked = 0

    @asynccontextmanager
    async def connection(self) -> AsyncGenerator[Any]:
        self.asked += 1
        yield self.lent


def begin_with(monkeypatch: pytest.MonkeyPatch, seconds: float) -> None:
    """A request that has so much patience left."""
    monkeypatch.setattr(patience, "SECONDS", seconds)
    patience.begin()


def test_all_that_a_request_waits_for_ends_in_time():
    assert patience.SECONDS + 0.3 < PROMISED_SECONDS
    assert desk.ANSWER_SECONDS <= patience.SECONDS
    before = [keys.TURN_SECONDS, tenant_pools.WAIT_SECONDS, patience.TURN_SECONDS]
    after = patience.ACQUIRE_SECONDS + patience.LOCK_SECONDS + patience.SPARE_SECONDS
    assert max(before) + after <= patience.SECONDS
    assert patience.SPARE_SECONDS >= 0.5, "or locked runs are given up as silent"
    assert patience.MOST_ACQUIRE_SECONDS + patience.LOCK_SECONDS + patience.SPARE_SECONDS <= patience.SECONDS
    assert patience.MOST_ACQUIRE_SECONDS + group.SPARE_SECONDS < patience.SECONDS
    assert group.LOOK_SECONDS < group.SPARE_SECONDS
    assert group.LONGEST_FLIGHT_SECONDS >= again.SECONDS + group.FLIGHT_SECONDS
    silent = patience.STATEMENT_SECONDS + 1 + patience.RELEASE_SECONDS
    assert silent < PROMISED_SECONDS, "a connection that has fallen silent is given up, and given back"
    assert patience.STATEMENT_SECONDS >= patience.LOCK_SECONDS


async def test_a_request_has_patience_from_when_it_comes_in():
    left = list[float]()

    async def app(_scope: Any, _receive: Any, _send: Any) -> None:
        left.append(patience.seconds_left())

    class Keys:
        async def principal(self, _key: str) -> None:
            left.append(patience.seconds_left())
            raise DatabaseBusy

    admission = Admission(app, Keys(), *[None] * 3)  # pyright: ignore[reportArgumentType] - is refused before
    scope = {"type": "http", "path": "/v1/runs", "headers": [(b"x-api-key", b"a")]}
    await asyncio.create_task(admission(scope, None, None))
    assert len(left) == 2
    assert patience.SECONDS >= left[0] >= left[1] > patience.SECONDS - 1


async def test_what_was_waited_before_is_off_the_turn_at_the_run(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(patience, "seconds_left", lambda: patience.SECONDS - patience.TURN_SECONDS + 0.5)
    async with RunLanes(patience.TURN_SECONDS).turn(TENANT, RUN) as turn:
        assert turn.seconds_left() <= 0.5


async def test_who_has_no_patience_left_waits_for_no_turn(monkeypatch: pytest.MonkeyPatch):
    lanes = RunLanes(patience.TURN_SECONDS)
    async with lanes.turn(TENANT, RUN), lanes.turn(TENANT, RUN):
        begin_with(monkeypatch, 0.0)
        with pytest.raises(RunLocked):
            async with lanes.turn(TENANT, RUN):
                pass


async def test_who_has_no_patience_left_asks_for_no_connection(monkeypatch: pytest.MonkeyPatch):
    pool = OnePool()
    begin_with(monkeypatch, patience.ACQUIRE_SECONDS / 2)
    with pytest.raises(DatabaseBusy):
        async with TenantPools(pool, 4).of(TENANT).connection():
            pass
    assert pool.asked == 0


async def test_a_connection_that_is_silent_is_cut_off_when_patience_ends(monkeypatch: pytest.MonkeyPatch):
    pool = OnePool()
    begin_with(monkeypatch, patience.ACQUIRE_SECONDS + 0.2)
    async with asyncio.timeout(10):
        with pytest.raises(DatabaseAway):
            async with TenantPools(pool, 4).of(TENANT).connection() as connection:
                await connection.fetch("")


async def test_a_connection_that_is_given_back_in_time_is_not_cut_off(monkeypatch: pytest.MonkeyPatch):
    pool = OnePool()
    begin_with(monkeypatch, patience.ACQUIRE_SECONDS + 1)
    async with TenantPools(pool, 4).of(TENANT).connection():
        pass
    await asyncio.sleep(max(0.0, patience.seconds_left()) + 0.05)
    assert not pool.lent.cut_off.is_set()


@pytest.mark.parametrize(
    ("left", "seconds"),
    [
        (patience.SECONDS, patience.MOST_ACQUIRE_SECONDS),
        (2.9, 1.4),
        (1.0, patience.ACQUIRE_SECONDS),
        (-1.0, patience.ACQUIRE_SECONDS),
        (math.inf, patience.ACQUIRE_SECONDS),
    ],
)
def test_a_connection_is_waited_for_as_long_as_there_is_patience(
    monkeypatch: pytest.MonkeyPatch, left: float, seconds: float
):
    monkeypatch.setattr(patience, "seconds_left", lambda: left)
    assert patience.seconds_for_a_connection() == pytest.approx(seconds)


async def test_what_was_waited_before_is_off_the_wait_for_a_flight(monkeypatch: pytest.MonkeyPatch):
    """Its key alone took nearly all of it."""
    appender = Grouped(OnePool(), never_alone(), lambda: None)
    begin_with(monkeypatch, patience.SECONDS)
    monkeypatch.setattr(
        patience, "seconds_spent", lambda: patience.SECONDS - group.SPARE_SECONDS + group.LOOK_SECONDS / 2
    )
    flying = asyncio.create_task(appender.fly())
    with pytest.raises(DatabaseBusy):
        await appender.commit(Append(RUN, TENANT, []))
    flying.cancel()


def never_alone() -> OneByOne:
    class Alone(OneByOne):
        def __init__(self) -> None: ...

        async def commit(self, _append: Append) -> Appended:
            return Appended(Seq(1), Seq(1), RunStatus.RUNNING, cancel_requested=False)

    return Alone()


async def test_who_claims_waits_for_an_answer_as_long_as_there_is_patience(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(desk, "ANSWER_SECONDS", 60)
    hanging = asyncio.Event()

    async def hang(*_args: object) -> Any:
        await hanging.wait()

    async def stays() -> bool:
        return False

    waiting = desk.ClaimDesk(hang, hang, hang, lambda _: None)
    running = asyncio.create_task(waiting.run())
    begin_with(monkeypatch, 0.1)
    async with asyncio.timeout(10):
        with pytest.raises(DatabaseBusy):
            await waiting.claim(Claim(TENANT, ["a"], Claimant("w", 30)), 0, stays)
    running.cancel()


async def test_who_waits_for_a_run_begins_again_afterwards(monkeypatch: pytest.MonkeyPatch):
    begin_with(monkeypatch, 0.05)
    await Waker(OnePool(), lambda _: None).wait(RUN, None, 0.1)
    assert patience.seconds_left() > 0


async def test_who_has_sent_its_body_for_a_while_has_the_same_patience_as_before(
    monkeypatch: pytest.MonkeyPatch,
):
    """The time is that from the last byte."""
    begin_with(monkeypatch, 1.0)
    before = patience.seconds_left()
    patience.excuse(0.5)
    assert before + 0.4 < patience.seconds_left() <= before + 0.5


async def test_who_writes_again_begins_again_with_each_look_and_each_statement(
    monkeypatch: pytest.MonkeyPatch,
):
    """Which together take as long as they need."""

    left = list[float]()

    class Slow(OnePool):
        @asynccontextmanager
        async def connection(self) -> AsyncGenerator[Any]:
            left.append(patience.seconds_left())
            patience.excuse(-100)
            yield self

        def terminate(self) -> None: ...

        async def fetchval(self, *_args: object) -> int:
            return 0

    async def stay() -> None:
        patience.excuse(-100)

    begin_with(monkeypatch, 1000)
    writing = Republisher(TenantPools(Slow(), 1), RunLanes(1), TENANT, None, lambda: None, stay)
    await writing._write([Span(RUN, 1, 2 * STATEMENT_SEQS)])
    assert [round(each, -1) for each in left] == [1000, 1000, 1000], "a statement, a look, a statement"


async def test_who_is_no_request_has_no_end_of_patience():
    patience.begin_again()
    patience.excuse(1)
    assert patience.seconds_left() == float("inf")
    assert patience.seconds_spent() == 0
