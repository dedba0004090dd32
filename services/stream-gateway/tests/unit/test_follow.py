"""What a watcher holds that is woken because its client has fallen behind."""

import asyncio
from collections.abc import Callable, Iterable

import pytest

from juinie_shared.domain.ids import KeyId, RunId, Seq, TenantId, new_uuid7
from juinie_shared.domain.runs import RunStatus
from juinie_shared.runtime.direct_body import chunk
from juinie_stream_gateway.core.backfill import Backfill
from juinie_stream_gateway.core.follow import Follower
from juinie_stream_gateway.core.hub import BATCH_BYTES, Hub, Room
from juinie_stream_gateway.core.recent import RecentFrames
from juinie_stream_gateway.core.start import Start
from juinie_stream_gateway.core.watcher import Watcher
from juinie_stream_gateway.edges.connection import HttpConnection
from juinie_stream_gateway.edges.outlet import OutletLimits, ResponseOutlet
from juinie_stream_gateway.store import Event, Page, RunRow

KERNEL_BYTES = 64 * 1024


class Line:
    """Of a client that reads nothing: what is written stays."""

    def __init__(self) -> None:
        self.held_bytes = 0
        self._held = False

    @property
    def behind(self) -> bool:
        return self.held_bytes > KERNEL_BYTES

    @property
    def write(self) -> Callable[[bytes], None] | None:
        return None if self._held or self.behind else self._write

    def _write(self, data: bytes) -> None:
        self.held_bytes += len(data)

    def begin(self, headers: Iterable[tuple[bytes, bytes]]) -> bool:  # noqa: ARG002 - as a `DirectBody`
        return True

    def go(self) -> None: ...
    def look(self) -> None: ...

    def hold(self) -> None:
        self._held = True

    def release(self) -> None:
        self._held = False


class Connection(HttpConnection):
    """Takes nothing any more."""

    def __init__(self) -> None:
        super().__init__({}, _never, _never)
        self.line = self.kept = Line()

    def unsent_bytes(self) -> int:
        return self.kept.held_bytes

    async def send_body(self, data: bytes) -> None:  # noqa: ARG002
        await _never()


async def _never(*_: object) -> dict[str, object]:
    await asyncio.Event().wait()
    return {}


async def _nothing(*_: object) -> None:
    raise AssertionError("nothing is read: all of it is in memory")


@pytest.mark.parametrize(("size", "count"), [(300, 6_000), (120 * 1024, 12), (250 * 1024, 8)])
async def test_who_is_behind_holds_no_more_once_it_is_woken(size: int, count: int):
    limits = OutletLimits()
    hub = Hub(RecentFrames(32 << 20), lambda _: None, asyncio.get_running_loop().call_soon, pack=chunk)
    listening = asyncio.Event()

    async def listen(_room: Room) -> None:
        listening.set()

    follower = Follower(hub, Backfill(_nothing), listen)
    outlet = ResponseOutlet(Connection(), limits)
    watcher = Watcher(outlet, Start(Seq(1), Seq(1)), None)
    room = follower.join(RunId(new_uuid7()), TenantId(new_uuid7()), KeyId(new_uuid7()), watcher)
    hub.take_page(room, Page(RunRow(Seq(1), RunStatus.RUNNING), ()))
    assert await follower.follow(room, watcher)
    woken: list[asyncio.Task[bool]] = []
    outlet.rest(lambda: woken.append(asyncio.create_task(follower.follow(room, watcher))))
    for number in range(count):
        hub.take_record(room, Event(Seq(2 + number), "text", b"x" * size))
    hub.hand_on()
    (task,) = woken
    before = outlet.held_bytes
    for _ in range(3):
        await asyncio.sleep(0)
    assert outlet.held_bytes == before
    assert limits.buffer_bytes < before <= limits.buffer_bytes + max(BATCH_BYTES, size + 100)
    task.cancel()
