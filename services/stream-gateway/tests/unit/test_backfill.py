"""Reading for a room: who wants the same page shares one read, whatever becomes of it the room may ask for the next, and a fault
is its own.
"""

import asyncio

import pytest

from juinie_shared.domain.errors import DatabaseAway
from juinie_shared.domain.ids import KeyId, RunId, Seq, TenantId, new_uuid7
from juinie_shared.domain.runs import RunStatus
from juinie_stream_gateway.core.backfill import Backfill
from juinie_stream_gateway.core.hub import Hub, Room
from juinie_stream_gateway.core.recent import RecentFrames
from juinie_stream_gateway.core.start import Start
from juinie_stream_gateway.core.watcher import Watcher
from juinie_stream_gateway.edges.connection import NoLine
from juinie_stream_gateway.store import Event, Page, RunRow

TENANT, KEY = TenantId(new_uuid7()), KeyId(new_uuid7())


class Outlet:
    """Remembers why it was closed."""

    written_bytes, full, idle = 0, False, True
    line = NoLine()

    def __init__(self) -> None:
        self.closing: str | None = None

    def write(self, data: bytes) -> None: ...
    def write_each(self, frames: object) -> None: ...
    def wake(self) -> None: ...
    def finish(self) -> None: ...

    def reconnect(self, reason: str) -> None:
        self.closing = self.closing or reason

    async def flush(self) -> None: ...
    async def wait(self, seconds: float | None = None) -> None: ...


class Watched:
    """A room with a live watcher, whose reads end as they are told."""

    def __init__(self) -> None:
        self.refills: list[Room] = []
        self.hub = Hub(RecentFrames(10**6), self.refills.append, asyncio.get_running_loop().call_soon)
        self.outlet = Outlet()
        watcher = Watcher(self.outlet, Start(Seq(1), Seq(1)), None)
        self.room = self.hub.attach(RunId(new_uuid7()), TENANT, KEY, watcher)
        self.hub.take_page(self.room, Page(RunRow(Seq(1), RunStatus.RUNNING), ()))
        assert self.hub.go_live(self.room, watcher)

    def gap(self, seq: int) -> None:
        self.hub.take_record(self.room, Event(Seq(seq), "text", b"x"))
        self.hub.hand_on()

    async def refill(self, answer: Page | BaseException | None) -> None:
        async def read(_run_id: RunId, _after_seq: Seq) -> Page | None:
            if isinstance(answer, BaseException):
                raise answer
            return answer

        refill = asyncio.create_task(Backfill(read).refill(self.hub, self.room))
        await asyncio.wait({refill})
        assert refill.cancelled() or refill.exception() is None


@pytest.mark.parametrize(
    ("answer", "closing"),
    [
        (DatabaseAway(), None),
        (ValueError("a status of a later version"), "internal"),
        (asyncio.CancelledError(), None),
        (None, "deleted"),
    ],
    ids=["away", "a fault", "broken off", "gone"],
)
async def test_whatever_becomes_of_a_read_the_next_gap_is_read(
    answer: BaseException | None, closing: str | None
):
    watched = Watched()
    watched.gap(9)
    assert watched.refills == [watched.room]
    await watched.refill(answer)
    assert watched.outlet.closing == closing
    watched.gap(10)
    assert watched.refills == [watched.room] * 2


class Reading:
    """Reads that end when they are told, and the watchers of some rooms that wait for a page each."""

    def __init__(self) -> None:
        self.asked: list[tuple[RunId, Seq]] = []
        self.counted = 0
        self.answer: asyncio.Future[Page | None] = asyncio.get_running_loop().create_future()
        self.backfill = Backfill(self._read, self._count)

    async def _read(self, run_id: RunId, after_seq: Seq) -> Page | None:
        self.asked.append((run_id, after_seq))
        return await asyncio.shield(self.answer)

    def _count(self) -> None:
        self.counted += 1

    async def wanted(self, *pages: tuple[Room, int]) -> list[asyncio.Task[Page | None]]:
        """Each page, wanted by somebody, all at once. Returns when all wait."""
        tasks = [asyncio.create_task(self.backfill.page(room, Seq(after))) for room, after in pages]
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        return tasks


@pytest.fixture
async def rooms() -> list[Room]:
    return [Room(RunId(new_uuid7()), TENANT) for _ in range(2)]


PAGE = Page(RunRow(Seq(7), RunStatus.RUNNING), ())


async def test_who_wants_the_same_page_at_once_shares_one_read(rooms: list[Room]):
    reading = Reading()
    tasks = await reading.wanted(*[(rooms[0], 5)] * 40)
    assert reading.asked == [(rooms[0].run_id, 5)]
    assert reading.counted == 1
    reading.answer.set_result(PAGE)
    assert await asyncio.gather(*tasks) == [PAGE] * 40


async def test_other_places_and_other_runs_have_reads_of_their_own(rooms: list[Room]):
    reading = Reading()
    one, other = rooms
    tasks = await reading.wanted((one, 5), (one, 6), (other, 5), (one, 5))
    assert reading.asked == [(one.run_id, 5), (one.run_id, 6), (other.run_id, 5)]
    reading.answer.set_result(PAGE)
    await asyncio.gather(*tasks)


async def test_who_leaves_takes_nobodys_page_away(rooms: list[Room]):
    reading = Reading()
    first, second = await reading.wanted((rooms[0], 5), (rooms[0], 5))
    first.cancel()
    await asyncio.wait({first})
    reading.answer.set_result(PAGE)
    assert await second is PAGE
    assert len(reading.asked) == 1


@pytest.mark.parametrize("failed", [False, True])
async def test_who_comes_when_a_read_is_over_has_one_of_their_own(rooms: list[Room], failed: bool):
    reading = Reading()
    tasks = await reading.wanted((rooms[0], 5), (rooms[0], 5))
    if failed:
        reading.answer.set_exception(DatabaseAway())
    else:
        reading.answer.set_result(PAGE)
    told = await asyncio.gather(*tasks, return_exceptions=True)
    assert [isinstance(one, DatabaseAway) for one in told] == [failed] * 2
    reading.answer = asyncio.get_running_loop().create_future()
    (late,) = await reading.wanted((rooms[0], 5))
    assert len(reading.asked) == 2
    reading.answer.set_result(PAGE)
    assert await late is PAGE


@pytest.mark.parametrize("turns", range(4), ids="in turn {}".format)
async def test_a_read_from_before_the_run_was_set_back_is_of_no_use_to_anybody(rooms: list[Room], turns: int):
    """Whoever waits for it, and whoever comes while it is under way; also where it has ended and they have not gone on yet."""
    reading, room = Reading(), rooms[0]
    room.splice.take_page(PAGE)
    (early,) = await reading.wanted((room, 5))
    before, reading.answer = reading.answer, asyncio.get_running_loop().create_future()
    before.set_result(PAGE)
    for _ in range(turns):
        await asyncio.sleep(0)
    was_told = early.done()
    assert room.splice.take_row(RunRow(Seq(3), RunStatus.RUNNING), room.splice.known, kafka_away=False)
    (late,) = await reading.wanted((room, 5))
    now = Page(RunRow(Seq(3), RunStatus.RUNNING), ())
    reading.answer.set_result(now)
    assert [await early, await late] == [PAGE if was_told else now, now]
