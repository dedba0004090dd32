"""The hub by example: who is written to, and who is not."""

from juinie_shared.contracts.sse import event_frame
from juinie_shared.domain.ids import KeyId, RunId, Seq, TenantId, new_uuid7
from juinie_shared.domain.runs import RunStatus
from juinie_stream_gateway.core.hub import Hub, Room
from juinie_stream_gateway.core.recent import RecentFrames
from juinie_stream_gateway.core.start import Start
from juinie_stream_gateway.core.watcher import Watcher
from juinie_stream_gateway.store import Event, Page, RunRow

TENANT, KEY = TenantId(new_uuid7()), KeyId(new_uuid7())


class Outlet:
    def __init__(self) -> None:
        self.writes: list[bytes] = []
        self.written_bytes = 0
        self.full = False
        self.closing: str | None = None

    def write(self, data: bytes) -> None:
        self.writes.append(data)

    def finish(self) -> None:
        self.closing = "ended"

    def reconnect(self, reason: str) -> None:
        self.closing = reason

    async def flush(self) -> None: ...

    async def wait(self, seconds: float | None = None) -> None: ...


def event(seq: int, size: int = 2) -> Event:
    return Event(Seq(seq), "text", event_frame(seq, b"x" * size))


def live(hub: Hub, run_id: RunId) -> tuple[Room, Outlet, Watcher]:
    outlet = Outlet()
    watcher = Watcher(outlet, Start(Seq(1), Seq(1)), None)
    room = hub.attach(run_id, TENANT, KEY, watcher)
    hub.take_page(room, Page(RunRow(Seq(1), RunStatus.RUNNING), ()))
    assert hub.go_live(room, watcher)
    outlet.writes.clear()
    return room, outlet, watcher


def new_hub() -> tuple[Hub, list[Room]]:
    refills: list[Room] = []
    return Hub(RecentFrames(10**6), refills.append), refills


def test_a_batch_is_one_write_of_the_same_bytes_for_each_watcher_of_the_run() -> None:
    hub, _ = new_hub()
    run_id = RunId(new_uuid7())
    room, one, _ = live(hub, run_id)
    _, two, _ = live(hub, run_id)
    _, other, _ = live(hub, RunId(new_uuid7()))
    hub.take_records(room, [event(2), event(3), event(4)])
    assert one.writes == two.writes == [event(2).frame + event(3).frame + event(4).frame]
    assert one.writes[0] is two.writes[0]
    assert other.writes == []


def test_a_watcher_whose_outlet_is_full_gets_no_more_until_it_has_caught_up() -> None:
    hub, _ = new_hub()
    room, outlet, watcher = live(hub, RunId(new_uuid7()))
    outlet.full = True
    hub.take_records(room, [event(2, size=100_000), event(3, size=100_000), event(4)])
    assert len(outlet.writes) == 1
    assert not watcher.live
    assert not hub.go_live(room, watcher)
    watcher.show(hub.recent(room, watcher.position), Seq(1))
    assert watcher.position == 4
    assert hub.go_live(room, watcher)


def test_a_gap_asks_for_one_read() -> None:
    hub, refills = new_hub()
    room, outlet, _ = live(hub, RunId(new_uuid7()))
    hub.take_records(room, [event(4), event(5)])
    assert (outlet.writes, refills) == ([], [room])


def test_a_page_that_comes_after_the_last_watcher_left_changes_nothing() -> None:
    hub, _ = new_hub()
    run_id = RunId(new_uuid7())
    old, _, watcher = live(hub, run_id)
    hub.detach(old, watcher)
    assert hub.rooms() == []
    new, _, _ = live(hub, run_id)
    hub.take_page(old, Page(RunRow(Seq(3), RunStatus.RUNNING), (event(2), event(3))))
    assert hub.recent(new, Seq(1)) == []


def test_retention_that_passes_the_head_is_a_gap_for_all_who_are_live_and_the_rest_comes() -> None:
    hub, _ = new_hub()
    room, outlet, watcher = live(hub, RunId(new_uuid7()))
    hub.take_records(room, [event(2), event(9)])
    assert outlet.writes == [event(2).frame]
    hub.end_read(room, Page(RunRow(Seq(9), RunStatus.RUNNING, Seq(8)), (event(8), event(9))))
    assert outlet.writes[1:] == [
        b'event: stream.gap\ndata: {"retained_from_seq":8}\n\n',
        event(8).frame + event(9).frame,
    ]
    assert watcher.live
    hub.take_records(room, [event(10)])
    assert outlet.writes[-1] == event(10).frame
    assert [kept.seq for kept in hub.recent(room, Seq(7))] == [8, 9, 10]


def test_the_end_is_written_to_all_and_nobody_is_live_after_it() -> None:
    hub, _ = new_hub()
    room, outlet, watcher = live(hub, RunId(new_uuid7()))
    hub.take_page(room, Page(RunRow(Seq(2), RunStatus.SUCCESS), (event(2),)))
    assert outlet.writes == [
        event(2).frame,
        b'event: stream.end\ndata: {"last_seq":2,"status":"success"}\n\n',
    ]
    assert outlet.closing == "ended"
    assert not watcher.live


def test_a_deleted_run_sends_all_away() -> None:
    hub, _ = new_hub()
    room, outlet, _ = live(hub, RunId(new_uuid7()))
    hub.take_row(room, None, Seq(1))
    assert outlet.closing == "deleted"
