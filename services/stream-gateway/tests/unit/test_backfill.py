"""Reading for a room: whatever becomes of a read, the room may ask for the next, and a fault is its own."""

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
