"""The tail check by example: whom it asks about, and how often."""

import asyncio
from collections import Counter
from collections.abc import Collection, Iterable
from typing import cast

import pytest

from juinie_shared.domain.ids import KeyId, RunId, Seq, TenantId, new_uuid7
from juinie_shared.domain.runs import RunStatus
from juinie_stream_gateway.core.hub import Hub, Room
from juinie_stream_gateway.core.recent import RecentFrames
from juinie_stream_gateway.core.start import Start
from juinie_stream_gateway.core.tail import TailCheck
from juinie_stream_gateway.core.watcher import Watcher
from juinie_stream_gateway.edges.connection import NoLine
from juinie_stream_gateway.store import Page, RunRow
from juinie_testkit.turns import turns

TENANT, KEY = TenantId(new_uuid7()), KeyId(new_uuid7())


class Outlet:
    written_bytes, full, idle, closing = 0, False, True, None

    line = NoLine()

    def write(self, data: bytes) -> None: ...

    def write_each(self, frames: Iterable[bytes]) -> None:
        for frame in frames:
            self.write(frame)

    def wake(self) -> None: ...

    def finish(self) -> None: ...

    def __init__(self) -> None:
        self.closed: list[str] = []

    def reconnect(self, reason: str) -> None:
        self.closed.append(reason)

    async def flush(self) -> None: ...

    async def wait(self, seconds: float | None = None) -> None: ...


class Database:
    """Says how far each run is, and remembers which it was asked about."""

    def __init__(self) -> None:
        self.last_seqs: dict[RunId, int] = {}
        self.unknown: set[RunId] = set()
        self.asked: set[RunId] = set()

    async def read_runs(self, run_ids: Collection[RunId]) -> dict[RunId, RunRow | None]:
        self.asked = set(run_ids)
        return {
            run_id: None if run_id in self.unknown else RunRow(Seq(last_seq), RunStatus.RUNNING)
            for run_id, last_seq in self.last_seqs.items()
            if run_id in self.asked
        }


def watched(hub: Hub, database: Database) -> Room:
    run_id = RunId(new_uuid7())
    room = hub.attach(run_id, TENANT, KEY, Watcher(Outlet(), Start(Seq(1), Seq(1)), None))
    hub.take_page(room, Page(RunRow(Seq(1), RunStatus.RUNNING), ()))
    database.last_seqs[run_id] = 1
    return room


async def test_all_runs_are_asked_about_sooner_while_kafka_owes_any() -> None:
    database, refills = Database(), list[Room]()
    hub = Hub(RecentFrames(10**6), refills.append, asyncio.get_running_loop().call_soon)
    hub.kafka_live = True
    tail = TailCheck(hub, database.read_runs, 1.0, 0.5)
    late, other = watched(hub, database), watched(hub, database)
    database.last_seqs[late.run_id] = 2

    await tail.check(tail.due())
    await tail.check(tail.due(everyone=False))
    assert (database.asked, refills) == ({late.run_id}, [late])
    await tail.check(tail.due(everyone=False))
    assert database.asked == {late.run_id, other.run_id}

    hub.end_read(late, None)
    late.splice.head = Seq(2)  # it came
    await tail.check(tail.due())
    await tail.check(tail.due(everyone=False))
    assert database.asked == {late.run_id}


async def test_a_row_of_a_later_version_and_one_that_is_gone_are_their_watchers_matter_alone() -> None:
    database = Database()
    hub = Hub(RecentFrames(10**6), list[Room]().append, asyncio.get_running_loop().call_soon)
    tail = TailCheck(hub, database.read_runs, 1.0, 0.5)
    later, gone, well = (watched(hub, database) for _ in range(3))
    database.unknown.add(later.run_id)
    del database.last_seqs[gone.run_id]

    await tail.check(tail.due())
    assert [closed(room) for room in (later, gone, well)] == [["internal"], ["deleted"], []]


async def test_of_very_many_a_few_are_held_against_their_rows_in_each_turn(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    database, taken = Database(), Counter[int]()
    hub = Hub(RecentFrames(10**6), list[Room]().append, asyncio.get_running_loop().call_soon)
    tail = TailCheck(hub, database.read_runs, 1.0, 0.5, at_once=3)
    for _ in range(10):
        watched(hub, database)
    with turns() as turn:
        monkeypatch.setattr(hub, "take_row", lambda *_: taken.update([turn()]))
        await tail.check(tail.due())
    assert (max(taken.values()), taken.total()) == (3, 10)


def closed(room: Room) -> list[str]:
    return [reason for watcher in room.watchers for reason in cast("Outlet", watcher.outlet).closed]
