"""The splice by example: what it does with records, pages and rows."""

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
    assert not splice.take_row(row(4), Seq(3), kafka_away=False)
    assert splice.suspect
    assert not splice.begin_read()
    splice.take_row(row(4), Seq(3), kafka_away=False)
    assert splice.begin_read()


def test_a_run_that_kafka_was_behind_on_is_read_at_once_until_kafka_delivers_first() -> None:
    splice = splice_at(3)
    for _ in range(2):
        splice.take_row(row(4), Seq(3), kafka_away=False)
    assert splice.begin_read()
    splice.end_read(page(4, 4))
    splice.take_row(row(5), Seq(4), kafka_away=False)
    assert splice.begin_read()
    splice.end_read(page(5, 5))
    assert splice.take_record(event(6)) is Verdict.NEXT
    splice.take_row(row(7), Seq(6), kafka_away=False)
    assert not splice.begin_read()


def test_without_kafka_what_is_missing_is_read_at_once() -> None:
    splice = splice_at(3)
    splice.take_row(row(4), Seq(3), kafka_away=True)
    assert splice.begin_read()


def test_a_row_from_before_the_newest_events_is_no_reset() -> None:
    splice = splice_at(3)
    splice.take_record(event(4))
    assert not splice.take_row(row(3), Seq(3), kafka_away=False)
    assert splice.head == 4


def test_a_row_behind_what_was_sent_before_the_question_is_a_reset() -> None:
    splice = splice_at(9)
    assert splice.take_row(row(4), Seq(9), kafka_away=False)
    assert splice.head == 4
    assert splice.take_record(event(5)) is Verdict.NEXT
