"""The hub by example: who is written to, and who is not."""

from collections.abc import Callable, Iterable, Sequence

import pytest

from juinie_shared.contracts.sse import event_frame
from juinie_shared.domain.events import RUN_FINISHED
from juinie_shared.domain.ids import KeyId, RunId, Seq, TenantId, new_uuid7
from juinie_shared.domain.runs import RunStatus
from juinie_stream_gateway.core.hub import BATCH_BYTES, MOST_UNDELIVERED, Hub, Room
from juinie_stream_gateway.core.recent import RecentFrames
from juinie_stream_gateway.core.splice import Verdict
from juinie_stream_gateway.core.start import Start
from juinie_stream_gateway.core.watcher import Watcher
from juinie_stream_gateway.store import Event, Page, RunRow

TENANT, KEY = TenantId(new_uuid7()), KeyId(new_uuid7())


class Line:
    """Takes what its outlet takes, while that is not full."""

    def __init__(self, outlet: "Outlet") -> None:
        self._outlet = outlet

    @property
    def write(self) -> Callable[[bytes], None] | None:
        return None if self._outlet.full or self._outlet.closing else self._outlet.write


class Outlet:
    def __init__(self) -> None:
        self.writes: list[bytes] = []
        self.written_bytes = 0
        self.full = False
        self.woken = 0
        self.fails = False
        self.line = Line(self)
        self.closing: str | None = None

    @property
    def idle(self) -> bool:
        return self.closing is None

    def write(self, data: bytes) -> None:
        if self.fails:
            raise RuntimeError("closed")
        self.writes.append(data)

    def write_each(self, frames: Iterable[bytes]) -> None:
        for frame in frames:
            self.write(frame)

    def wake(self) -> None:
        self.woken += 1

    def finish(self) -> None:
        self.closing = "ended"

    def reconnect(self, reason: str) -> None:
        self.closing = reason

    async def flush(self) -> None: ...

    async def wait(self, seconds: float | None = None) -> None: ...


def event(seq: int, size: int = 2) -> Event:
    return Event(Seq(seq), "text", event_frame(seq, b"x" * size))


def live_at(hub: Hub, room: Room, head: Seq) -> tuple[Room, Outlet, Watcher]:
    """One more, who stands at the head."""
    outlet = Outlet()
    watcher = Watcher(outlet, Start(head, head), None)
    hub.attach(room.run_id, TENANT, KEY, watcher)
    assert hub.go_live(room, watcher)
    outlet.writes.clear()
    return room, outlet, watcher


def live(hub: Hub, run_id: RunId) -> tuple[Room, Outlet, Watcher]:
    outlet = Outlet()
    watcher = Watcher(outlet, Start(Seq(1), Seq(1)), None)
    room = hub.attach(run_id, TENANT, KEY, watcher)
    hub.take_page(room, Page(RunRow(Seq(1), RunStatus.RUNNING), ()))
    assert hub.go_live(room, watcher)
    outlet.writes.clear()
    return room, outlet, watcher


def take_records(hub: Hub, room: Room, events: list[Event]) -> None:
    """As of a poll that brought no other run's."""
    for each in events:
        hub.take_record(room, each)
    hub.hand_on()


def new_hub() -> tuple[Hub, list[Room]]:
    refills: list[Room] = []
    return Hub(RecentFrames(10**6), refills.append, _never), refills


def _never(_act: Callable[[], None]) -> None:
    raise AssertionError("Few watchers are written to at once.")


def test_a_batch_is_one_write_of_the_same_bytes_for_each_watcher_of_the_run() -> None:
    hub, _ = new_hub()
    run_id = RunId(new_uuid7())
    room, one, _ = live(hub, run_id)
    _, two, _ = live(hub, run_id)
    _, other, _ = live(hub, RunId(new_uuid7()))
    take_records(hub, room, [event(2), event(3), event(4)])
    assert one.writes == two.writes == [event(2).frame + event(3).frame + event(4).frame]
    assert one.writes[0] is two.writes[0]
    assert other.writes == []


def test_what_a_poll_brought_of_several_runs_is_written_once_all_of_it_is_taken() -> None:
    hub, refills = new_hub()
    (room, one, _), (other_room, other, _) = live(hub, RunId(new_uuid7())), live(hub, RunId(new_uuid7()))
    verdicts = [
        hub.take_record(room, event(2)),
        hub.take_record(other_room, event(5)),
        hub.take_record(room, event(3)),
        hub.take_record(other_room, event(2)),
    ]
    assert verdicts == [Verdict.NEXT, Verdict.AHEAD, Verdict.NEXT, Verdict.NEXT]
    assert one.writes == other.writes == refills == []
    hub.hand_on()
    assert one.writes == [event(2).frame + event(3).frame]
    assert other.writes == [event(2).frame]
    assert refills == [other_room]
    hub.hand_on()
    assert len(one.writes) == len(other.writes) == 1


def test_nothing_but_writes_stands_between_the_writes_of_a_poll() -> None:
    """Of several runs, one of which nobody watches any more: all is kept, then written, and only then is looked at what follows."""
    done: list[str] = []

    class Recent(RecentFrames):
        def add(self, run: bytes, events: Sequence[Event]) -> None:
            done.append("keep")
            super().add(run, events)

    hub = Hub(Recent(10**6), lambda _: done.append("read"), _never)
    (first, one, _), (left, nobody, gone), (second, other, _) = (
        live(hub, RunId(new_uuid7())) for _ in range(3)
    )
    for outlet in (one, nobody, other):
        outlet.write = lambda _: done.append("write")
    finished = Event(Seq(2), RUN_FINISHED, event(2).frame)  # after which a page is read
    for room in (first, left, second):
        assert hub.take_record(room, finished) is Verdict.NEXT
    hub.detach(left, gone)
    hub.hand_on()
    assert done == ["keep", "keep", "write", "write", "read", "read"]


def test_a_watcher_whose_outlet_is_full_gets_no_more_until_it_has_caught_up() -> None:
    hub, _ = new_hub()
    room, outlet, watcher = live(hub, RunId(new_uuid7()))
    outlet.full = True
    take_records(hub, room, [event(2, size=100_000), event(3, size=100_000), event(4)])
    assert len(outlet.writes) == 1
    assert not watcher.live
    assert not hub.go_live(room, watcher)
    watcher.show(hub.recent(room, watcher.position), Seq(1))
    assert watcher.position == 4
    assert hub.go_live(room, watcher)


def test_a_gap_asks_for_one_read() -> None:
    hub, refills = new_hub()
    room, outlet, _ = live(hub, RunId(new_uuid7()))
    take_records(hub, room, [event(4), event(5)])
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
    take_records(hub, room, [event(2), event(9)])
    assert outlet.writes == [event(2).frame]
    hub.end_read(room, Page(RunRow(Seq(9), RunStatus.RUNNING, Seq(8)), (event(8), event(9))))
    assert outlet.writes[1:] == [
        b'event: stream.gap\ndata: {"retained_from_seq":8}\n\n',
        event(8).frame + event(9).frame,
    ]
    assert watcher.live
    take_records(hub, room, [event(10)])
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
    hub.take_row(room, None, room.splice.known)
    assert outlet.closing == "deleted"


# ---- many watchers, in slices ------------------------------------------------------------------------------------------


class Crowd:
    """Five live watchers of one run, of whom two are written to in one turn."""

    def __init__(self, few: int = 2) -> None:
        self.turns: list[Callable[[], None]] = []
        self.refills: list[Room] = []
        self.hub = Hub(RecentFrames(10**6), self.refills.append, self.turns.append, slice_of=2, few=few)
        run_id = RunId(new_uuid7())
        joined = [live(self.hub, run_id) for _ in range(5)]
        self.room = joined[0][0]
        self.outlets, self.watchers = (
            [outlet for _, outlet, _ in joined],
            [watcher for _, _, watcher in joined],
        )

    def written(self) -> list[int]:
        """How much each has got."""
        return sorted(sum(map(len, outlet.writes)) for outlet in self.outlets)

    def turn(self) -> None:
        turns, self.turns[:] = list(self.turns), []
        for act in turns:
            act()

    def to_the_end(self) -> None:
        while self.turns:
            self.turn()


@pytest.mark.parametrize(("few", "in_this_turn"), [(5, 5), (4, 2)])
def test_few_are_written_to_at_once_and_more_in_slices(few: int, in_this_turn: int) -> None:
    crowd = Crowd(few)
    take_records(crowd.hub, crowd.room, [event(2)])
    assert sum(map(bool, crowd.written())) == in_this_turn


def test_many_watchers_are_written_to_in_turns_and_each_once() -> None:
    crowd, size = Crowd(), len(event(2).frame)
    take_records(crowd.hub, crowd.room, [event(2)])
    assert crowd.written() == [0, 0, 0, size, size]
    crowd.turn()
    assert crowd.written() == [0, size, size, size, size]
    crowd.turn()
    assert crowd.written() == [size] * 5
    assert crowd.turns == []


def test_what_comes_meanwhile_follows_in_order_and_as_one() -> None:
    crowd = Crowd()
    take_records(crowd.hub, crowd.room, [event(2)])
    take_records(crowd.hub, crowd.room, [event(3)])
    _, late, watcher = live_at(crowd.hub, crowd.room, Seq(3))
    take_records(crowd.hub, crowd.room, [event(4)])
    crowd.to_the_end()
    assert all(outlet.writes == [event(2).frame, event(3).frame + event(4).frame] for outlet in crowd.outlets)
    assert (late.writes, watcher.live, late.woken) == (
        [],
        False,
        1,
    )  # in the midst of what was joined: it goes on by itself


def test_where_more_comes_than_can_be_written_each_goes_on_by_itself() -> None:
    crowd = Crowd()
    for seq in range(2, 3 + MOST_UNDELIVERED):
        take_records(crowd.hub, crowd.room, [event(seq, size=BATCH_BYTES)])
    assert not crowd.room.undelivered
    assert not any(watcher.live for watcher in crowd.watchers)
    crowd.to_the_end()
    assert all(outlet.woken for outlet in crowd.outlets)


def test_a_connection_that_fails_takes_nobody_s_event_away() -> None:
    crowd = Crowd()
    broken = crowd.outlets[2]
    broken.fails = True
    take_records(crowd.hub, crowd.room, [event(2)])
    crowd.to_the_end()
    take_records(crowd.hub, crowd.room, [event(3)])
    crowd.to_the_end()
    others = [outlet for outlet in crowd.outlets if outlet is not broken]
    assert all(outlet.writes == [event(2).frame, event(3).frame] for outlet in others)
    assert (crowd.watchers[2].live, crowd.watchers[2].position) == (False, 1)


def test_a_connection_that_fails_while_it_catches_up_takes_no_other_run_s_event_away() -> None:
    hub = Hub(RecentFrames(10**6), list[Room]().append, lambda call: call())
    broken_room, broken, failing = live(hub, RunId(new_uuid7()))
    failing.caught_up, broken.fails = False, True
    room, outlet, watcher = live(hub, RunId(new_uuid7()))
    hub.take_record(broken_room, event(2))
    hub.take_record(room, event(2))
    hub.hand_on()
    assert (failing.live, failing.position) == (False, 1)
    assert (outlet.writes, watcher.position) == ([event(2).frame], 2)


def test_who_is_not_at_the_head_is_told_no_end() -> None:
    """It goes on by itself, and comes to the end as others do."""
    hub = Hub(RecentFrames(10**6), list[Room]().append, lambda call: call())
    room, outlet, watcher = live(hub, RunId(new_uuid7()))
    room.splice.head = Seq(2)  # by whatever befell it
    hub.take_row(room, RunRow(Seq(2), RunStatus.SUCCESS), room.splice.known)
    assert (outlet.closing, watcher.live, outlet.woken) == (None, False, 1)


def test_the_end_comes_after_what_is_undelivered() -> None:
    crowd = Crowd()
    crowd.hub.take_page(crowd.room, Page(RunRow(Seq(2), RunStatus.SUCCESS), (event(2),)))
    assert [outlet.closing for outlet in crowd.outlets] == [None] * 5
    crowd.to_the_end()
    assert all(outlet.closing == "ended" for outlet in crowd.outlets)
    assert all(b"".join(outlet.writes).startswith(event(2).frame) for outlet in crowd.outlets)


def test_many_watchers_are_told_the_end_in_turns_also_those_who_come_meanwhile() -> None:
    crowd = Crowd(few=5)
    crowd.hub.take_page(crowd.room, Page(RunRow(Seq(2), RunStatus.SUCCESS), (event(2),)))
    _, late, _ = live_at(crowd.hub, crowd.room, Seq(2))
    outlets = [*crowd.outlets, late]
    told = []
    while crowd.turns:
        told.append([outlet.closing for outlet in outlets].count("ended"))
        crowd.turn()
    assert told == [4]  # of whom two when the late one came
    assert all(outlet.closing == "ended" for outlet in outlets)
    assert all(b"".join(outlet.writes).count(b"stream.end") == 1 for outlet in crowd.outlets)
    assert not crowd.room.live


def test_one_that_cannot_be_told_the_end_holds_up_nobody() -> None:
    crowd, run_id = Crowd(few=5), RunId(new_uuid7())
    others = [live(crowd.hub, run_id) for _ in range(6)]
    ended = RunRow(Seq(1), RunStatus.SUCCESS)
    crowd.hub.take_row(crowd.room, ended, crowd.room.splice.known)
    broken = next(outlet for outlet in crowd.outlets if outlet.closing is None)
    broken.fails = True
    with pytest.raises(RuntimeError):
        crowd.to_the_end()
    assert broken.woken, "it goes on by itself"
    take_records(crowd.hub, others[0][0], [event(2)])
    crowd.to_the_end()
    assert all(b"".join(outlet.writes) == event(2).frame for _, outlet, _ in others)
    crowd.hub.take_row(crowd.room, ended, crowd.room.splice.known)
    crowd.to_the_end()
    assert [outlet for outlet in crowd.outlets if outlet.closing is None] == [broken]


def test_an_end_that_is_taken_back_is_told_to_nobody_else() -> None:
    crowd = Crowd(few=5)
    crowd.hub.take_row(crowd.room, RunRow(Seq(1), RunStatus.SUCCESS), crowd.room.splice.known)
    assert [outlet.closing for outlet in crowd.outlets].count("ended") == 2
    crowd.hub.take_row(crowd.room, RunRow(Seq(1), RunStatus.RUNNING), crowd.room.splice.known)
    crowd.to_the_end()
    assert [outlet.closing for outlet in crowd.outlets].count("ended") == 2


def test_many_watchers_are_sent_away_in_turns() -> None:
    crowd, sent_away = Crowd(), []
    crowd.hub.close_room(crowd.room, "deleted")
    while crowd.turns:
        sent_away.append([outlet.closing for outlet in crowd.outlets].count("deleted"))
        crowd.turn()
    assert sent_away == [2, 4]
    assert all(outlet.closing == "deleted" for outlet in crowd.outlets)


def test_many_runs_of_few_watchers_share_the_turns_of_one_of_many() -> None:
    crowd = Crowd(few=3)
    others = [live(crowd.hub, RunId(new_uuid7())) for _ in range(5)]
    rooms = [room for room, _, _ in others]
    for room in (*rooms, crowd.room):
        crowd.hub.take_record(room, event(2))
    crowd.hub.hand_on()
    written: list[int] = []
    while True:
        outlets = [*crowd.outlets, *(outlet for _, outlet, _ in others)]
        written.append(sum(bool(outlet.writes) for outlet in outlets))
        if not crowd.turns:
            break
        crowd.turn()
    assert written == [5, 7, 9, 10]
    assert all(b"".join(outlet.writes) == event(2).frame for outlet in outlets)
    assert all(watcher.position == 2 for _, _, watcher in others)


def test_who_leaves_falls_behind_or_catches_up_meanwhile_gets_nothing_twice() -> None:
    crowd = Crowd()
    take_records(crowd.hub, crowd.room, [event(2)])
    waiting = [number for number, outlet in enumerate(crowd.outlets) if not outlet.writes]
    leaver, catcher, _ = waiting
    crowd.hub.detach(crowd.room, crowd.watchers[leaver])
    crowd.watchers[catcher].show([event(2)], Seq(1))
    crowd.to_the_end()
    assert crowd.outlets[leaver].writes == []
    assert b"".join(crowd.outlets[catcher].writes) == event(2).frame
    assert crowd.watchers[catcher].live
    take_records(crowd.hub, crowd.room, [event(3)])
    crowd.to_the_end()
    assert crowd.outlets[catcher].writes[-1] == event(3).frame


def test_a_run_that_is_set_back_takes_what_is_undelivered_with_it() -> None:
    crowd = Crowd()
    take_records(crowd.hub, crowd.room, [event(2), event(3)])
    crowd.hub.take_row(crowd.room, RunRow(Seq(2), RunStatus.RUNNING), crowd.room.splice.known)
    crowd.to_the_end()
    told = [b"stream.reset" in b"".join(outlet.writes) for outlet in crowd.outlets]
    assert sorted(told) == [False, False, False, True, True]
    assert not any(watcher.live for watcher in crowd.watchers)
    assert all(outlet.woken for outlet in crowd.outlets)  # each reads on by itself
    assert {watcher.position for watcher, reset in zip(crowd.watchers, told, strict=True) if not reset} == {1}


def test_retention_that_overtakes_the_undelivered_is_told_once_to_each() -> None:
    crowd = Crowd()
    take_records(crowd.hub, crowd.room, [event(2), event(9)])
    crowd.hub.end_read(crowd.room, Page(RunRow(Seq(9), RunStatus.RUNNING, Seq(8)), (event(8), event(9))))
    crowd.to_the_end()
    for outlet in crowd.outlets:
        assert outlet.writes[0] == event(2).frame  # what all had coming, all get
        assert b"".join(outlet.writes).count(b"stream.gap") == 1
        assert b"".join(outlet.writes).endswith(event(8).frame + event(9).frame)
