"""The frames of one watcher, byte for byte."""

from collections.abc import Iterable
from dataclasses import dataclass, field

from juinie_shared.contracts.sse import event_frame
from juinie_shared.domain.ids import Seq
from juinie_shared.domain.runs import RunStatus
from juinie_stream_gateway.core.start import Start
from juinie_stream_gateway.core.watcher import Watcher, joined
from juinie_stream_gateway.edges.connection import NoLine
from juinie_stream_gateway.store import Event, RunRow

PREAMBLE = b"retry: 2000\n: juinie\n"


@dataclass
class Outlet:
    sent: bytes = b""
    closing: str | None = None
    idle = True
    full: bool = False
    said: list[str] = field(default_factory=list)

    line = NoLine()

    @property
    def written_bytes(self) -> int:
        return len(self.sent)

    def write(self, data: bytes) -> None:
        self.sent += data

    def write_each(self, frames: Iterable[bytes]) -> None:
        for frame in frames:
            self.write(frame)

    def wake(self) -> None: ...

    def finish(self) -> None:
        self.closing = "ended"

    def reconnect(self, reason: str) -> None:
        self.said.append(reason)

    async def flush(self) -> None: ...

    async def wait(self, seconds: float | None = None) -> None: ...

    def new(self) -> bytes:
        sent, self.sent = self.sent, b""
        return sent


def event(seq: int, event_type: str = "a") -> Event:
    return Event(Seq(seq), event_type, event_frame(seq, b"{}"))


def watch(
    position: int, stored: int, types: frozenset[str] | None = None, **more: bool
) -> tuple[Watcher, Outlet]:
    outlet = Outlet()
    return Watcher(outlet, Start(Seq(position), Seq(stored), **more), types), outlet


def test_a_stream_from_its_start_to_its_end() -> None:
    watcher, outlet = watch(0, 2)
    assert outlet.new() == PREAMBLE
    watcher.show([event(1), event(2)], Seq(1))
    assert outlet.new() == (
        b'data: {}\nid: 1\n\ndata: {}\nid: 2\n\nevent: stream.caught_up\ndata: {"last_seq":2}\n\n'
    )
    watcher.advance(event(3).frame, Seq(3), Seq(3))
    assert outlet.new() == b"data: {}\nid: 3\n\n"
    watcher.end(RunRow(Seq(3), RunStatus.ERROR))
    assert outlet.new() == b'event: stream.end\ndata: {"last_seq":3,"status":"error"}\n\n'
    assert outlet.closing == "ended"


def test_tail_has_its_cursor_and_is_caught_up_at_once() -> None:
    _, outlet = watch(7, 7, tail=True)
    assert outlet.new() == PREAMBLE + b'id: 7\n\nevent: stream.caught_up\ndata: {"last_seq":7}\n\n'


def test_a_reset_is_told_before_anything_else() -> None:
    watcher, outlet = watch(0, 1, reset=True)
    assert outlet.new() == PREAMBLE + b'event: stream.reset\ndata: {"last_seq":1}\n\n'
    watcher.show([event(1)], Seq(1))
    assert outlet.new() == b'data: {}\nid: 1\n\nevent: stream.caught_up\ndata: {"last_seq":1}\n\n'


def test_a_gap_is_told_and_the_rest_follows() -> None:
    watcher, outlet = watch(0, 5)
    outlet.new()
    watcher.show([event(4), event(5)], Seq(4))
    assert outlet.new() == (
        b'event: stream.gap\ndata: {"retained_from_seq":4}\n\ndata: {}\nid: 4\n\ndata: {}\nid: 5\n\n'
        b'event: stream.caught_up\ndata: {"last_seq":5}\n\n'
    )


def test_a_stream_of_which_nothing_is_kept_is_caught_up_after_the_gap() -> None:
    watcher, outlet = watch(2, 5)
    outlet.new()
    assert watcher.show([], Seq(6))
    assert outlet.new() == (
        b'event: stream.gap\ndata: {"retained_from_seq":6}\n\nid: 5\n\n'
        b'event: stream.caught_up\ndata: {"last_seq":5}\n\n'
    )


def test_events_that_were_shown_are_not_shown_again_and_none_is_skipped() -> None:
    watcher, outlet = watch(2, 9)
    outlet.new()
    assert watcher.show([event(1), event(2), event(3)], Seq(1))
    assert outlet.new() == b"data: {}\nid: 3\n\n"
    assert not watcher.show([event(2), event(3)], Seq(1))
    assert not watcher.show([event(6)], Seq(1))
    assert outlet.new() == b""


def test_a_filter_moves_the_cursor_before_caught_up_and_end() -> None:
    watcher, outlet = watch(0, 3, frozenset({"a"}))
    outlet.new()
    watcher.show([event(1, "a"), event(2, "b"), event(3, "b")], Seq(1))
    assert outlet.new() == b'data: {}\nid: 1\n\nid: 3\n\nevent: stream.caught_up\ndata: {"last_seq":3}\n\n'
    watcher.advance(b"", Seq(4), None)
    assert outlet.new() == b""
    watcher.move_cursor()
    watcher.move_cursor()
    assert outlet.new() == b"id: 4\n\n"
    watcher.advance(b"", Seq(5), None)
    watcher.end(RunRow(Seq(5), RunStatus.SUCCESS))
    assert outlet.new() == b'id: 5\n\nevent: stream.end\ndata: {"last_seq":5,"status":"success"}\n\n'


def test_the_end_of_a_run_passes_every_filter() -> None:
    frames, shown = joined([event(1, "b"), event(2, "run.finished"), event(3, "b")], frozenset({"a"}))
    assert (frames, shown) == (b"data: {}\nid: 2\n\n", 2)


def test_silence_is_broken_after_so_many_ticks_and_only_then() -> None:
    watcher, outlet = watch(0, 9)
    outlet.sent = b"preamble"
    ticks = [watcher_beat(watcher, outlet) for _ in range(8)]
    assert ticks == [b"", b"", b"", b":\n", b"", b"", b":\n", b""]


def watcher_beat(watcher: Watcher, outlet: Outlet) -> bytes:
    before = len(outlet.sent)
    watcher.beat(3)
    return outlet.sent[before:]


def test_who_has_all_that_a_set_back_left_has_caught_up() -> None:
    watcher, outlet = watch(3, 9)
    outlet.new()
    watcher.owe_at_most(Seq(4))
    assert outlet.new() == b""
    watcher.owe_at_most(Seq(3))
    assert outlet.new() == b'event: stream.caught_up\ndata: {"last_seq":3}\n\n'


def test_a_run_that_was_set_back_starts_again() -> None:
    watcher, outlet = watch(5, 5)
    outlet.new()
    watcher.set_back(Seq(2))
    assert outlet.new() == b'event: stream.reset\ndata: {"last_seq":2}\n\n'
    watcher.show([event(1), event(2)], Seq(1))
    assert outlet.new() == b"data: {}\nid: 1\n\ndata: {}\nid: 2\n\n"
