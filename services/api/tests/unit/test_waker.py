"""The look at the runs that are waited for: however often something is committed, it takes a part of the time only; and what
who waits is told when it fails, or does not come back.
"""

import asyncio
import time
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any, cast

import pytest

from juinie_api.core import patience
from juinie_api.core import waker as waker_module
from juinie_api.core.waker import (
    POLL_SECONDS,
    REST_SECONDS,
    SEEN_SECONDS,
    STANDSTILL_SECONDS,
    UNSEEN_SECONDS,
    Waker,
    rest_seconds,
)
from juinie_shared.domain.errors import DatabaseAway, DatabaseBusy
from juinie_shared.domain.ids import RunId, new_run_id
from juinie_testkit.waits import eventually

LOOK_SECONDS = 0.05


class SlowPool:
    """Takes its time for a query, and finds every run as it was."""

    @asynccontextmanager
    async def connection(self) -> AsyncGenerator[Any]:
        yield self

    async def fetch(self, _statement: str, run_ids: list[Any]) -> list[dict[str, Any]]:
        await asyncio.sleep(LOOK_SECONDS)
        return [{"run_id": run_id, "last_seq": 1, "finished": False} for run_id in run_ids]


@pytest.mark.parametrize(
    ("took", "rest"), [(0.0, REST_SECONDS), (0.001, REST_SECONDS), (0.05, 0.2), (5.0, POLL_SECONDS)]
)
def test_the_rest_is_in_proportion_to_the_look_and_bounded(took: float, rest: float):
    assert rest_seconds(took) == rest


async def test_the_rest_follows_what_the_look_took(monkeypatch: pytest.MonkeyPatch):
    took = list[float]()

    def rest(seconds: float) -> float:
        took.append(seconds)
        return 0.0

    monkeypatch.setattr(waker_module, "rest_seconds", rest)
    waker = Waker(cast("Any", SlowPool()), lambda _: None)
    running, waiting = asyncio.create_task(waker.run()), asyncio.create_task(waker.wait(new_run_id(), 1, 60))
    await eventually(lambda: max(took, default=0) >= LOOK_SECONDS, 10, "a rest after a look")
    for task in (running, waiting):
        task.cancel()
    await asyncio.gather(running, waiting, return_exceptions=True)


class MovingPool:
    """Its looks go well, fail, or do not come back, as `standing` says; it finds every run as it was, until it is in `ended`."""

    def __init__(self) -> None:
        self.standing = "well"
        self.ended = set[RunId]()
        self.looks = 0

    @asynccontextmanager
    async def connection(self) -> AsyncGenerator[Any]:
        yield self

    async def fetch(self, _statement: str, run_ids: list[RunId]) -> list[dict[str, Any]]:
        self.looks += 1
        if self.standing == "hangs":
            await asyncio.Event().wait()
        if self.standing == "away":
            raise DatabaseAway
        return [{"run_id": run_id, "last_seq": 1, "finished": run_id in self.ended} for run_id in run_ids]


class Clock:
    """Goes on when it is told to."""

    def __init__(self) -> None:
        self.now = 0.0

    def monotonic(self) -> float:
        return self.now


class Waiting:
    """A waker that runs by a clock of its own, with a database of which one can say how it stands."""

    def __init__(self) -> None:
        self.pool, self.clock = MovingPool(), Clock()
        self.failed = list[str]()
        self.waker = Waker(cast("Any", self.pool), self.failed.append)
        self.run_id = new_run_id()

    def wait(self, seconds: float = 60) -> asyncio.Task[bool]:
        return asyncio.create_task(self.waker.wait(self.run_id, None, seconds))

    async def look(self) -> None:
        """A look begins, after this."""
        looks = self.pool.looks
        await eventually(lambda: self.pool.looks > looks, 10, "a look")


@pytest.fixture
async def waiting(monkeypatch: pytest.MonkeyPatch) -> AsyncGenerator[Waiting]:
    there = Waiting()
    monkeypatch.setattr(waker_module, "POLL_SECONDS", 0.05)
    monkeypatch.setattr(waker_module, "TELL_SECONDS", 0.01)
    monkeypatch.setattr(waker_module, "time", there.clock)
    running = asyncio.create_task(there.waker.run())
    yield there
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)


@pytest.mark.parametrize(("standing", "error"), [("away", DatabaseAway), ("hangs", DatabaseBusy)])
async def test_who_waits_is_told_of_a_database_that_no_look_sees(
    waiting: Waiting, standing: str, error: type[Exception]
):
    waits = [waiting.wait() for _ in range(3)]
    await waiting.look()
    waiting.pool.standing = standing
    await waiting.look()
    waiting.clock.now += UNSEEN_SECONDS
    async with asyncio.timeout(20):
        told = await asyncio.gather(*waits, return_exceptions=True)
    assert [type(outcome) for outcome in told] == [error] * 3


async def test_a_blip_is_told_to_nobody(waiting: Waiting):
    wait = waiting.wait()
    await waiting.look()
    waiting.pool.standing = "away"
    await eventually(lambda: len(waiting.failed) >= 2, 10, "looks that fail")
    waiting.clock.now += UNSEEN_SECONDS / 2
    waiting.pool.standing = "well"
    await waiting.look()
    await waiting.look()
    waiting.pool.standing = "away"
    await waiting.look()
    waiting.clock.now += UNSEEN_SECONDS * 2 / 3
    waiting.pool.ended.add(waiting.run_id)
    waiting.pool.standing = "well"
    async with asyncio.timeout(20):
        assert await wait is True


async def test_who_comes_while_no_look_goes_well_waits_as_long_as_who_came_before(waiting: Waiting):
    """It has just read its run, so the database is there for some."""
    waiting.pool.standing = "away"
    first = waiting.wait()
    await eventually(lambda: waiting.failed, 10, "a look that fails")
    waiting.clock.now += 1
    second = waiting.wait()
    await eventually(lambda: waiting.waker.waiting == 2, 10, "both wait")
    waiting.clock.now += UNSEEN_SECONDS - 0.5
    async with asyncio.timeout(20):
        with pytest.raises(DatabaseAway):
            await first
        assert not second.done()
        waiting.clock.now += 1
        with pytest.raises(DatabaseAway):
            await second


@pytest.mark.parametrize("standing", ["away", "hangs"])
async def test_who_has_waited_in_vain_reads_again_unless_the_newest_look_went_well(
    waiting: Waiting, standing: str
):
    assert await waiting.wait(0.3) is False
    waiting.pool.standing = standing
    assert await waiting.wait(0.3) is True


async def test_who_has_waited_in_vain_at_a_server_that_stood_still_reads_again(waiting: Waiting):
    """No look has failed, and none was made."""
    still = Waker(cast("Any", waiting.pool), waiting.failed.append)
    assert await still.wait(waiting.run_id, None, 0.1) is False
    wait = asyncio.create_task(still.wait(waiting.run_id, None, 0.3))
    await eventually(lambda: still.waiting, 10, "it waits")
    waiting.clock.now += SEEN_SECONDS
    assert await wait is True


async def test_what_a_process_stood_still_for_is_not_the_databases_silence(monkeypatch: pytest.MonkeyPatch):
    """The answer to the look has come meanwhile, and lies here."""
    monkeypatch.setattr(waker_module, "UNSEEN_SECONDS", 2 * STANDSTILL_SECONDS)
    began, answer = asyncio.Event(), asyncio.Event()

    class Answering(MovingPool):
        async def fetch(self, _statement: str, run_ids: list[RunId]) -> list[dict[str, Any]]:
            began.set()
            await answer.wait()
            for _ in range(10):  # from the socket to whoever asked
                await asyncio.sleep(0)
            return await super().fetch(_statement, run_ids)

    pool = Answering()
    waker, run_id = Waker(cast("Any", pool), lambda _: None), new_run_id()
    running = asyncio.create_task(waker.run())
    wait = asyncio.create_task(waker.wait(run_id, None, 60))
    await began.wait()
    answer.set()
    time.sleep(3 * STANDSTILL_SECONDS)  # noqa: ASYNC251 - nothing of this process runs meanwhile
    await eventually(lambda: pool.looks > 1, 10, "another look")
    assert not wait.done()
    for task in (running, wait):
        task.cancel()
    await asyncio.gather(running, wait, return_exceptions=True)


async def test_a_standstill_before_the_look_is_not_taken_off_it(
    waiting: Waiting, monkeypatch: pytest.MonkeyPatch
):
    """Nor another one, once there was one: who waits is told in the end."""
    monkeypatch.setattr(waker_module, "STANDSTILL_SECONDS", -1.0)  # each time that is looked
    wait = waiting.wait()
    await waiting.look()
    waiting.pool.standing = "hangs"
    await waiting.look()
    waiting.clock.now += UNSEEN_SECONDS
    async with asyncio.timeout(20):
        with pytest.raises(DatabaseBusy):
            await wait


async def test_a_look_waits_for_a_connection_as_long_as_a_request_does(waiting: Waiting):
    """Where these get theirs, a look that does not would say nothing of the database."""
    waits_for, lend = list[float](), waiting.pool.connection

    def connection() -> Any:
        waits_for.append(patience.seconds_for_a_connection())
        return lend()

    waiting.pool.connection = connection
    wait = waiting.wait()
    await eventually(lambda: len(waits_for) >= 2, 10, "looks")
    assert min(waits_for) == patience.MOST_ACQUIRE_SECONDS
    wait.cancel()


async def test_who_waits_at_a_server_that_stops_reads_again_where_the_database_is_away(waiting: Waiting):
    waiting.pool.standing = "away"
    wait = waiting.wait()
    await eventually(lambda: waiting.failed, 10, "a look that fails")
    waiting.waker.drain()
    assert await wait is True
    assert await waiting.wait() is False
