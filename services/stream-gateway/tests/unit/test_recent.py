"""The newest frames of each run, under one budget."""

import tracemalloc

from juinie_shared.domain.ids import Seq
from juinie_stream_gateway.core.recent import AT_ONCE_EVENTS, EVENT_BYTES, RecentFrames
from juinie_stream_gateway.store import Event

ONE, TWO = b"one", b"two"

FRAME_BYTES = 10


def budget_for(count: int) -> int:
    return count * (FRAME_BYTES + EVENT_BYTES)


def events(first: int, last: int) -> list[Event]:
    return [Event(Seq(seq), "text", b"x" * FRAME_BYTES) for seq in range(first, last + 1)]


def kept(recent: RecentFrames, run: bytes, after_seq: int) -> list[int]:
    return [event.seq for event in recent.after(run, Seq(after_seq))]


def test_what_follows_a_position_is_given_or_nothing() -> None:
    recent = RecentFrames(budget_for(100))
    recent.add(ONE, events(5, 8))
    assert kept(recent, ONE, 4) == [5, 6, 7, 8]
    assert kept(recent, ONE, 6) == [7, 8]
    assert kept(recent, ONE, 8) == []
    assert kept(recent, ONE, 3) == []
    assert kept(recent, TWO, 0) == []


def test_a_watcher_that_is_far_behind_is_given_a_page_at_a_time() -> None:
    recent = RecentFrames(10**7)
    recent.add(ONE, [Event(Seq(seq), "text", b"x" * 100_000) for seq in range(1, 8)])
    recent.add(TWO, [Event(Seq(1), "text", b"x" * 1_000_000)])
    assert kept(recent, ONE, 0) == [1, 2]
    assert kept(recent, ONE, 2) == [3, 4]
    assert kept(recent, TWO, 0) == [1]


def test_many_small_events_are_given_a_page_at_a_time_too() -> None:
    recent = RecentFrames(10**7)
    recent.add(ONE, events(1, AT_ONCE_EVENTS + 5))
    assert kept(recent, ONE, 1) == list(range(2, AT_ONCE_EVENTS + 2))
    assert kept(recent, ONE, AT_ONCE_EVENTS) == list(range(AT_ONCE_EVENTS + 1, AT_ONCE_EVENTS + 6))


def test_the_run_that_was_quiet_for_longest_loses_its_frames_first() -> None:
    recent = RecentFrames(budget_for(5))
    recent.add(ONE, events(1, 3))
    recent.add(TWO, events(1, 3))
    assert kept(recent, ONE, 1) == [2, 3]
    recent.add(TWO, events(4, 5))
    assert kept(recent, ONE, 0) == []
    assert kept(recent, TWO, 0) == [1, 2, 3, 4, 5]
    recent.add(TWO, events(6, 6))
    assert kept(recent, TWO, 1) == [2, 3, 4, 5, 6]


def test_a_run_that_is_forgotten_gives_its_room_back() -> None:
    recent = RecentFrames(budget_for(4))
    recent.add(ONE, events(1, 4))
    recent.forget(ONE)
    recent.forget(TWO)
    recent.add(TWO, events(1, 4))
    assert kept(recent, TWO, 0) == [1, 2, 3, 4]


def test_many_small_events_take_no_more_memory_than_the_budget() -> None:
    budget = 1024 * 1024
    recent = RecentFrames(budget)
    tracemalloc.start()
    try:
        for seq in range(1000, 10_000):
            recent.add(ONE, [Event(Seq(seq), b"text".decode(), b"%0100d" % seq)])
        held, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert budget / 2 < held <= budget
