"""The splice by example: what it does with records, pages and rows."""

import pytest

from juinie_shared.domain.events import RUN_FINISHED
from juinie_shared.domain.ids import Seq
from juinie_shared.domain.runs import RunStatus
from juinie_stream_gateway.core.splice import Splice, Verdict
from juinie_stream_gateway.store import Event, Page, RunRow


def event(seq: int, event_type: str = "text") -> Event:
    return Event(Seq(seq), event_type, b"frame %d" % seq)


def row(last_seq: int, status: RunStatus = RunStatus.RUNNING) -> RunRow:
    return RunRow(Seq(last_seq), status)


def page(last_seq: int, *seqs: int, status: RunStatus = RunStatus.RUNNING) -> Page:
    return Page(row(last_seq, status), tuple(event(seq) for seq in seqs))


def seqs(events: tuple[Event, ...]) -> list[int]:
    return [event.seq for event in events]


def splice_at(head: int) -> Splice:
    splice = Splice()
    splice.take_page(page(head))
    return splice


def test_only_the_next_record_is_handed_on() -> None:
    splice = splice_at(3)
    assert [splice.take_record(event(seq)) for seq in (3, 4, 4, 2, 5)] == [
        Verdict.SEEN, Verdict.NEXT, Verdict.SEEN, Verdict.SEEN, Verdict.NEXT,
    ]  # fmt: skip
    assert not splice.begin_read()


def test_a_record_beyond_the_next_asks_for_a_page_and_is_dropped() -> None:
    splice = splice_at(3)
    assert splice.take_record(event(6)) is Verdict.AHEAD
    assert splice.begin_read()
    assert seqs(splice.end_read(page(6, 4, 5, 6))) == [4, 5, 6]
    assert splice.head == 6
    assert not splice.begin_read()


def test_a_forged_record_far_ahead_costs_one_page_and_changes_nothing() -> None:
    splice = splice_at(3)
    splice.take_record(event(10**9))
    assert splice.begin_read()
    assert splice.end_read(page(3)) == ()
    assert splice.head == 3
    assert not splice.begin_read()


def test_what_is_heard_during_a_read_gets_a_read_of_its_own() -> None:
    splice = splice_at(3)
    splice.take_record(event(5))
    assert splice.begin_read()
    splice.take_record(event(7))
    assert not splice.begin_read(), "one at a time"
    splice.end_read(page(5, 4, 5))
    assert splice.begin_read()


def test_a_read_that_failed_is_due_again() -> None:
    splice = splice_at(3)
    splice.want_read()
    assert splice.begin_read()
    splice.end_read(None)
    assert splice.begin_read()


def test_a_full_page_is_followed_by_the_next() -> None:
    splice = splice_at(0)
    splice.want_read()
    assert splice.begin_read()
    splice.end_read(page(10, 1, 2, 3))
    assert splice.begin_read()


def test_a_record_before_the_first_page_is_read_after_it() -> None:
    splice = Splice()
    assert splice.take_record(event(4)) is Verdict.AHEAD
    assert not splice.begin_read(), "nobody knows yet from where"
    splice.take_page(page(3, 1, 2, 3))
    assert splice.begin_read()
    assert seqs(splice.end_read(page(4, 4))) == [4]


def test_a_page_from_before_the_head_brings_nothing_and_one_beyond_it_its_end() -> None:
    splice = splice_at(5)
    assert splice.take_page(page(5, 1, 2, 3)) == ()
    assert seqs(splice.take_page(page(7, 4, 5, 6, 7))) == [6, 7]
    assert splice.take_page(page(11, 10, 11)) == (), "a page that does not follow waits for one that does"


def test_the_row_ends_the_run_and_not_the_record() -> None:
    splice = splice_at(3)
    assert splice.take_record(event(4, RUN_FINISHED)) is Verdict.NEXT
    assert not splice.ended
    assert splice.begin_read()
    splice.end_read(page(4, status=RunStatus.SUCCESS))
    assert splice.ended
    assert splice.take_record(event(5)) is Verdict.AFTER_END


def test_a_finished_run_has_not_ended_before_its_last_event() -> None:
    splice = splice_at(3)
    splice.take_page(page(9, 1, 2, status=RunStatus.SUCCESS))
    assert not splice.ended
    splice.take_page(page(9, 4, 5, 6, 7, 8, 9, status=RunStatus.SUCCESS))
    assert splice.ended


def test_the_tail_check_gives_kafka_until_the_next_check() -> None:
    splice = splice_at(3)
    assert not splice.take_row(row(4), splice.known, kafka_away=False)
    assert splice.suspect
    assert not splice.begin_read()
    splice.take_row(row(4), splice.known, kafka_away=False)
    assert splice.begin_read()


def test_a_run_that_kafka_was_behind_on_is_read_at_once_until_kafka_delivers_first() -> None:
    splice = splice_at(3)
    for _ in range(2):
        splice.take_row(row(4), splice.known, kafka_away=False)
    assert splice.begin_read()
    splice.end_read(page(4, 4))
    splice.take_row(row(5), splice.known, kafka_away=False)
    assert splice.begin_read()
    splice.end_read(page(5, 5))
    assert splice.take_record(event(6)) is Verdict.NEXT
    splice.take_row(row(7), splice.known, kafka_away=False)
    assert not splice.begin_read()


def test_without_kafka_what_is_missing_is_read_at_once() -> None:
    splice = splice_at(3)
    splice.take_row(row(4), splice.known, kafka_away=True)
    assert splice.begin_read()


def test_a_row_from_before_the_newest_events_is_no_reset() -> None:
    splice = splice_at(3)
    known = splice.known
    splice.take_record(event(4))
    assert not splice.take_row(row(3), known, kafka_away=False)
    assert splice.head == 4


def test_a_row_behind_what_was_sent_before_the_question_is_a_reset() -> None:
    splice = splice_at(9)
    assert splice.take_row(row(4), splice.known, kafka_away=False)
    assert splice.head == 4
    assert splice.take_record(event(5)) is Verdict.NEXT


@pytest.mark.parametrize("now", [row(8), row(10), row(12)], ids=["shorter", "as long", "longer"])
def test_an_end_that_is_gone_is_a_reset_also_before_it_was_reached(now: RunRow) -> None:
    """A failover lost it, and the run goes on."""
    splice = splice_at(8)
    splice.take_row(row(10, RunStatus.SUCCESS), splice.known, kafka_away=False)
    assert splice.take_row(now, splice.known, kafka_away=False)
    assert splice.head == 8
    assert [splice.take_record(event(seq)) for seq in (9, 10)] == [Verdict.NEXT, Verdict.NEXT]
    assert not splice.ended


def test_an_end_that_nobody_had_heard_of_when_the_row_was_asked_for_is_none_that_is_gone() -> None:
    splice = splice_at(8)
    known = splice.known
    splice.take_page(page(10, 9, 10, status=RunStatus.SUCCESS))
    assert not splice.take_row(row(8), known, kafka_away=False)
    assert splice.ended


def test_what_was_stored_and_is_no_more_is_a_reset_also_before_it_was_reached() -> None:
    splice = splice_at(8)
    splice.take_row(row(10), splice.known, kafka_away=False)
    assert splice.take_row(row(9), splice.known, kafka_away=False)
    assert (splice.head, splice.times_set_back) == (8, 1)


def test_a_finished_run_whose_events_are_removed_is_not_set_back() -> None:
    splice = splice_at(8)
    splice.take_row(row(9, RunStatus.SUCCESS), splice.known, kafka_away=False)
    removed = RunRow(Seq(9), RunStatus.SUCCESS, retained_from_seq=Seq(10))
    assert not splice.take_row(removed, splice.known, kafka_away=False)


def test_what_stands_where_the_end_should_be_is_read_first() -> None:
    """The run was set back, and nobody has looked since."""
    splice = splice_at(8)
    splice.take_row(row(10, RunStatus.SUCCESS), splice.known, kafka_away=False)
    assert [splice.take_record(event(seq)) for seq in (9, 10)] == [Verdict.NEXT, Verdict.AHEAD]
    assert splice.begin_read()
    splice.end_read(page(10, 10))
    assert (splice.head, splice.ended) == (10, False)
