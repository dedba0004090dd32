"""The checker finds each planted bug, names it rightly, and finds nothing in a history that is right."""

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from juinie.torture.checker import Checker
from juinie.torture.delays import Delays
from juinie.torture.findings import Kind

RUN = "run"


class Story:
    """A run of Juinie's as it should be: created, two appends of two and three events, the end at 7. Watched by `w`.

    A test takes what it needs and tells the rest wrongly.
    """

    def __init__(self) -> None:
        self.checker = Checker()
        self.log: list[bytes | None] = [None, b"a0", b"a1", b"b0", b"b1", b"b2", None]
        self.checker.open(RUN, "w", 0, at=0)

    def append(self, name: str, first: int, *contents: bytes, at: float = 1) -> None:
        self.checker.send(RUN, name, contents)
        self.checker.acknowledge(RUN, name, first, first + len(contents) - 1, at)

    def append_all(self) -> None:
        self.append("a", 2, b"a0", b"a1")
        self.append("b", 4, b"b0", b"b1", b"b2")

    def see(self, *seqs: int, reader: str = "w", at: float = 2) -> None:
        for seq in seqs:
            content = self.log[seq - 1]
            whole = f"{seq} {content}".encode()
            self.checker.see(RUN, reader, seq, content, whole, at, last=seq == len(self.log))

    def finish(self, at: float = 3) -> None:
        self.checker.finish(RUN, len(self.log), at)

    def end(self, reader: str = "w") -> None:
        self.checker.end(RUN, reader, len(self.log))

    def found(self) -> set[Kind]:
        """Conclude; the kinds that were found."""
        self.checker.conclude(RUN)
        return set(self.checker.findings.counts)


@pytest.fixture
def story() -> Story:
    return Story()


def test_right_history_has_no_finding_and_is_counted(story: Story) -> None:
    story.append_all()
    story.see(1, 2, 3, 4)
    story.checker.drop(RUN, "w")
    story.checker.open(RUN, "w", 4, at=2)
    story.see(5, 6, 7)
    story.finish()
    story.end()

    assert story.found() == set()
    assert (story.checker.events, story.checker.deliveries, story.checker.runs) == (7, 7, 1)


def test_event_that_a_watcher_skipped_is_lost(story: Story) -> None:
    story.append_all()
    story.see(1, 2, 4, 5, 6, 7)
    story.finish()
    story.end()

    assert story.found() == {Kind.LOST}
    assert story.checker.findings.kept[0].seq == 3


def test_event_skipped_before_a_drop_is_lost_though_the_watcher_returns(story: Story) -> None:
    story.append_all()
    story.see(1, 3)
    story.checker.drop(RUN, "w")

    assert story.checker.findings.counts == {Kind.LOST: 1}


def test_acknowledged_events_beyond_the_end_are_lost(story: Story) -> None:
    story.append_all()
    story.append("c", 8, b"c0")
    story.see(1, 2, 3, 4, 5, 6, 7)
    story.finish()
    story.end()

    assert Kind.LOST in story.found()


def test_end_before_the_last_event_is_a_loss(story: Story) -> None:
    story.append_all()
    story.finish()
    story.see(1, 2, 3)
    story.end()

    assert Kind.LOST in story.found()


def test_run_that_was_set_back_has_lost_something(story: Story) -> None:
    story.append_all()
    story.see(1, 2, 3, 4)
    story.checker.set_back(RUN, "w", 2)

    assert story.checker.findings.counts == {Kind.LOST: 1}


def test_event_that_comes_again_is_repeated(story: Story) -> None:
    story.append_all()
    story.see(1, 2, 3, 3, 4, 5, 6, 7)
    story.finish()
    story.end()

    assert story.found() == {Kind.REPEATED}


def test_append_stored_twice_is_repeated(story: Story) -> None:
    """As when the second try of a request is stored again."""
    story.append("a", 2, b"a0", b"a1")
    story.log = [None, b"a0", b"a1", b"a0", b"a1", None]
    story.see(1, 2, 3, 4, 5, 6)
    story.finish()
    story.end()

    assert story.found() == {Kind.REPEATED}


def test_unanswered_append_stored_twice_is_repeated(story: Story) -> None:
    story.checker.send(RUN, "a", [b"a0", b"a1"])
    story.log = [None, b"a0", b"a1", b"a0", b"a1", None]
    story.see(1, 2, 3, 4, 5, 6)
    story.finish()
    story.end()

    assert story.found() == {Kind.REPEATED}


def test_event_after_its_successor_is_reordered(story: Story) -> None:
    story.append_all()
    story.see(1, 2, 4, 3, 5, 6, 7)
    story.finish()
    story.end()

    assert story.found() == {Kind.REORDERED}


@pytest.mark.parametrize(
    "seen_first", [True, False], ids=["seen, then acknowledged", "acknowledged, then seen"]
)
def test_event_with_another_content_is_corrupt(story: Story, seen_first: bool) -> None:
    story.log[2] = b"a-other"
    steps: list[Callable[[], None]] = [story.append_all, lambda: story.see(1, 2, 3, 4, 5, 6, 7)]
    for step in reversed(steps) if seen_first else steps:
        step()
    story.finish()
    story.end()

    assert story.found() == {Kind.CORRUPT}


def test_two_readers_that_are_shown_other_bytes_under_one_seq_are_corrupt(story: Story) -> None:
    story.append_all()
    story.see(1, 2)
    story.checker.open(RUN, "v", 1, at=0)
    story.checker.see(RUN, "v", 2, b"a0", b"another time of the same event", at=2)

    assert story.checker.findings.counts == {Kind.CORRUPT: 1}


def test_event_that_nobody_sent_is_corrupt(story: Story) -> None:
    story.append("a", 2, b"a0", b"a1")
    story.log = [None, b"a0", b"a1", b"forged", None]
    story.see(1, 2, 3, 4, 5)
    story.finish()
    story.end()

    assert story.found() == {Kind.CORRUPT}


def test_refused_append_that_is_there_is_corrupt(story: Story) -> None:
    story.append("a", 2, b"a0", b"a1")
    story.checker.send(RUN, "b", [b"b0"])
    story.checker.refuse(RUN, "b")
    story.log = [None, b"a0", b"a1", b"b0", None]
    story.see(1, 2, 3, 4, 5)
    story.finish()
    story.end()

    assert story.found() == {Kind.CORRUPT}


@pytest.mark.parametrize(
    ("log", "kinds"),
    [
        ([None, b"b0", b"b1", None], set[Kind]()),
        ([None, None], set[Kind]()),
        ([None, b"b0", None], {Kind.TORN}),
    ],
    ids=["there", "not there", "there in part"],
)
def test_refusal_after_a_try_without_an_answer_proves_nothing(
    story: Story, log: list[bytes | None], kinds: set[Kind]
) -> None:
    story.checker.send(RUN, "b", [b"b0", b"b1"])
    story.checker.refuse(RUN, "b", after_no_answer=True)
    story.log = log
    story.see(*range(1, len(log) + 1))
    story.finish()
    story.end()

    assert story.found() == kinds


def test_two_appends_with_one_seq_are_corrupt(story: Story) -> None:
    story.append("a", 2, b"a0", b"a1")
    story.append("b", 3, b"b0")

    assert story.checker.findings.counts == {Kind.CORRUPT: 1}


@pytest.mark.parametrize(
    "log", [[None, b"a0", None], [None, b"a0", b"b0", b"a1", None], [None, b"a1", b"a0", None]],
    ids=["a part", "not in one piece", "turned round"],
)  # fmt: skip
def test_unanswered_append_that_is_there_in_part_is_torn(story: Story, log: list[bytes | None]) -> None:
    story.checker.send(RUN, "a", [b"a0", b"a1"])
    if b"b0" in log:
        story.append("b", 3, b"b0")
    story.log = log
    story.see(*range(1, len(log) + 1))
    story.finish()
    story.end()

    assert story.found() == {Kind.TORN}


@pytest.mark.parametrize("log", [[None, None], [None, b"a0", b"a1", None]], ids=["not there", "there"])
def test_unanswered_append_is_there_whole_or_not_at_all(story: Story, log: list[bytes | None]) -> None:
    story.checker.send(RUN, "a", [b"a0", b"a1"])
    story.log = log
    story.see(*range(1, len(log) + 1))
    story.finish()
    story.end()

    assert story.found() == set()


def test_answer_that_names_fewer_seqs_than_were_sent_is_torn(story: Story) -> None:
    story.checker.send(RUN, "a", [b"a0", b"a1"])
    story.checker.acknowledge(RUN, "a", 2, 2, at=1)

    assert story.checker.findings.counts == {Kind.TORN: 1}


def test_event_not_at_an_open_watcher_in_time_is_late_once(story: Story) -> None:
    story.append_all()
    story.see(1, 2)
    story.checker.look_for_late(at=31)
    assert story.checker.findings.counts == {}
    story.checker.look_for_late(at=31.1)
    story.checker.look_for_late(at=40)

    assert story.checker.findings.counts == {
        Kind.LATE: 1,
    }
    assert story.checker.findings.kept[0].seq == 3


def test_time_without_a_connection_does_not_make_late(story: Story) -> None:
    story.append_all()
    story.checker.drop(RUN, "w")
    story.checker.look_for_late(at=100)
    story.checker.open(RUN, "w", 0, at=100)
    story.checker.look_for_late(at=129)

    assert story.checker.findings.counts == {}
    story.checker.look_for_late(at=131)
    assert story.checker.findings.counts == {Kind.LATE: 1}


def test_longest_delay_counts_from_the_ack_or_the_connection(story: Story) -> None:
    story.append_all()
    story.see(1, 2, 3, at=2.5)
    delays = story.checker.take_delays()
    assert (delays.longest, delays.within(0.99)) == (1.5, 1.5)
    story.checker.open(RUN, "w", 3, at=10)
    story.see(4, at=10.25)

    assert story.checker.take_delays().longest == 0.25
    assert story.checker.take_delays().longest == 0


def test_delays_are_told_by_their_share() -> None:
    delays = Delays()
    assert delays.within(0.99) == 0
    for seconds in (*[0.01] * 98, 0.5, 3.0):
        delays.add(seconds)

    assert (delays.within(0.98), delays.within(0.99), delays.within(1)) == (0.02, 0.52, 3.0)


def test_watcher_that_is_never_told_of_the_end_misses_it(story: Story) -> None:
    story.append_all()
    story.see(1, 2, 3, 4, 5, 6, 7)
    story.finish()

    assert story.found() == {Kind.END_MISSING}


def test_clean_end_of_the_body_without_stream_end_is_no_end(story: Story) -> None:
    story.checker.false_end(RUN, "w")

    assert story.checker.findings.counts == {Kind.END_MISSING: 1}


def test_end_without_the_terminal_event_misses_it(story: Story) -> None:
    story.see(1)
    story.checker.end(RUN, "w", 1)

    assert story.checker.findings.counts == {Kind.END_MISSING: 1}


def test_run_that_nobody_finished_misses_its_end(story: Story) -> None:
    story.append_all()

    assert Kind.END_MISSING in story.found()


def test_second_end_is_found(story: Story) -> None:
    story.append_all()
    story.see(1, 2, 3, 4, 5, 6, 7)
    story.finish()
    story.end()
    story.end()

    assert story.found() == {Kind.END_TWICE}


def test_event_after_the_end_is_found(story: Story) -> None:
    story.append_all()
    story.see(1, 2, 3, 4, 5, 6, 7)
    story.finish()
    story.end()
    story.checker.see(RUN, "w", 8, b"c0", b"8", at=4)

    assert Kind.AFTER_END in story.found()


def test_append_acknowledged_beyond_the_end_is_found(story: Story) -> None:
    story.finish()
    story.append("c", 8, b"c0")

    assert story.checker.findings.counts == {Kind.AFTER_END: 1}


def test_read_that_shows_less_than_was_acknowledged_is_stale(story: Story) -> None:
    story.append("a", 2, b"a0", b"a1")
    before = story.checker.acknowledged(RUN)
    story.append("b", 4, b"b0", b"b1", b"b2")
    story.checker.read(RUN, "r", before, last_seq=3)
    assert story.checker.findings.counts == {}
    story.checker.read(RUN, "r", before, last_seq=2)

    assert story.checker.findings.counts == {Kind.STALE_READ: 1}


def test_id_that_is_not_the_seq_of_its_event_is_a_wrong_position(story: Story) -> None:
    """As when 2 is sent with `id: 5`: whoever is cut off then never gets 3 to 5."""
    story.append_all()
    for seq, position in ((1, 1), (2, 5)):
        story.see(seq)
        story.checker.move(RUN, "w", position)

    assert story.checker.findings.counts == {Kind.WRONG_POSITION: 1}


def test_what_an_id_skipped_is_lost_though_the_watcher_asks_for_what_follows_it(story: Story) -> None:
    story.append_all()
    story.see(1, 2)
    story.checker.drop(RUN, "w")
    story.checker.open(RUN, "w", 5, at=2)
    story.see(6, 7)
    story.finish()
    story.end()
    story.checker.open(RUN, "pages", 0, at=3)
    story.see(1, 2, 3, 4, 5, 6, 7, reader="pages")

    assert {Kind.WRONG_POSITION, Kind.LOST} <= story.found()


def test_events_without_ids_are_wrong_and_come_again(story: Story) -> None:
    story.append_all()
    story.see(1, 2, 3)
    story.checker.move(RUN, "w", None)
    story.checker.drop(RUN, "w")
    story.checker.open(RUN, "w", 0, at=2)
    story.see(1, 2, 3)

    assert story.checker.findings.counts == {Kind.WRONG_POSITION: 2, Kind.REPEATED: 3}


@pytest.mark.parametrize(
    ("acknowledged", "kind"), [(9, Kind.LOST), (6, Kind.AFTER_END)], ids=["too late", "too early"]
)
def test_end_that_is_acknowledged_elsewhere_than_readers_are_told(
    story: Story, acknowledged: int, kind: Kind
) -> None:
    story.append("a", 2, b"a0", b"a1")
    story.see(1, 2, 3, 4, 5, 6, 7)
    story.checker.finish(RUN, acknowledged, at=3)
    story.end()

    assert kind in story.found()


def test_two_ends_that_are_acknowledged_are_found(story: Story) -> None:
    story.append_all()
    story.finish()
    story.finish()
    assert story.checker.findings.counts == {}
    story.checker.finish(RUN, 8, at=3)

    assert story.checker.findings.counts == {Kind.END_TWICE: 1}


def test_run_that_ended_in_two_ways_is_found(story: Story) -> None:
    for status in ("success", "success", "error"):
        story.checker.end_as(RUN, "w", status)

    assert story.checker.findings.counts == {Kind.WRONG_STATUS: 1}


def test_events_that_no_reader_saw_are_lost(story: Story) -> None:
    story.append_all()
    story.finish()

    assert Kind.LOST in story.found()


def test_run_that_is_created_twice_is_found(story: Story) -> None:
    for seq in (1, 2):
        story.checker.see(RUN, "w", seq, None, b"created %d" % seq, at=1, first=True)

    assert story.checker.findings.counts == {Kind.REPEATED: 1}


def test_run_that_begins_with_something_else_is_corrupt(story: Story) -> None:
    story.append("a", 1, b"a0")
    story.checker.see(RUN, "w", 1, b"a0", b"1", at=1)

    assert story.checker.findings.counts == {Kind.CORRUPT: 1}


def test_what_comes_of_a_deleted_run_to_who_was_there_before_has_a_little_time(story: Story) -> None:
    story.checker.delete(RUN)
    story.checker.serve(RUN, "w", asked_at=1, at=50)
    story.checker.gone(RUN, at=60)
    story.checker.gone(RUN, at=1000)
    story.checker.serve(RUN, "w", asked_at=59, at=90)
    assert story.checker.findings.counts == {}
    story.checker.serve(RUN, "w", asked_at=59, at=90.1)
    story.checker.serve(RUN, "w", asked_at=60.1, at=60.2)

    assert story.checker.findings.counts == {Kind.DELETED: 2}


def test_of_a_run_that_may_be_gone_nothing_is_late(story: Story) -> None:
    story.append_all()
    story.checker.delete(RUN)
    story.checker.look_for_late(at=1000)

    assert story.checker.findings.counts == {}


def test_run_whose_delete_was_not_answered_is_judged_as_any_other(story: Story) -> None:
    story.append_all()
    story.checker.delete(RUN)
    story.see(1, 2, 3)
    story.finish()

    assert story.found() == {Kind.LOST, Kind.END_MISSING}


def test_watcher_that_was_never_let_in_misses_the_end(story: Story) -> None:
    story.append_all()
    story.see(1, 2, 3, 4, 5, 6, 7)
    story.finish()
    story.end()
    story.checker.watch(RUN, "never")

    assert story.found() == {Kind.END_MISSING}


def test_cursor_that_is_not_moved_past_what_is_left_out_is_late(story: Story) -> None:
    story.append_all()
    story.checker.watch(RUN, "t", frozenset({"never"}))
    story.checker.open(RUN, "t", 0, at=0)
    story.see(1, 2, 3, 4, 5, 6)
    story.checker.skip(RUN, "t", 6)
    story.checker.look_for_late(at=100)
    assert story.checker.findings.counts == {}
    story.append("c", 7, b"c0", at=100)
    story.checker.look_for_late(at=131)

    assert {violation.who for violation in story.checker.findings.kept} == {"t", "w"}


def concluded(story: Story) -> Checker:
    story.append_all()
    story.see(1, 2, 3, 4, 5, 6, 7)
    story.finish()
    story.end()
    story.checker.conclude(RUN)
    return story.checker


def test_append_acknowledged_after_the_run_was_concluded_is_found(story: Story) -> None:
    checker = concluded(story)
    story.append("late", 8, b"late")

    assert checker.findings.counts == {Kind.AFTER_END: 1}


@pytest.mark.parametrize(
    ("seqs", "kinds"),
    [
        ((1, 2, 3, 4, 5, 6, 7), set[Kind]()),
        ((1, 2, 3, 4, 5, 6), {Kind.LOST}),
        ((1, 2, 3, 4, 5, 6, 7, 7), {Kind.AFTER_END}),
        ((1, 2, 3, 4, 6, 5, 7), {Kind.CORRUPT}),
    ],
    ids=["the same", "less", "more", "another"],
)
def test_concluded_run_that_is_read_again_is_the_same(
    story: Story, seqs: tuple[int, ...], kinds: set[Kind]
) -> None:
    checker = concluded(story)
    checker.read_again(RUN, [f"{seq} {story.log[seq - 1]}".encode() for seq in seqs])

    assert set(checker.findings.counts) == kinds


def test_nothing_is_kept_of_a_concluded_run(story: Story) -> None:
    assert concluded(story)._runs == {}


@given(st.data())
def test_right_histories_have_no_finding(data: st.DataObject) -> None:
    """Any batches, answered or not, stored or not; any readers that drop where they like."""
    checker = Checker()
    log: list[bytes | None] = [None]
    answers: list[tuple[str, int, int]] = []
    for number, size in enumerate(data.draw(st.lists(st.integers(1, 4), max_size=6))):
        contents = [f"{number}.{index}".encode() for index in range(size)]
        checker.send(RUN, str(number), contents)
        fate = data.draw(st.sampled_from(["answered", "unanswered", "never arrived", "refused"]))
        if fate in {"answered", "unanswered"}:
            log += contents
        if fate == "answered":
            answers.append((str(number), len(log) - size + 1, len(log)))
        if fate == "refused":
            checker.refuse(RUN, str(number))
    log.append(None)
    for answer in data.draw(st.permutations(answers)):
        checker.acknowledge(RUN, *answer, at=1)
    checker.finish(RUN, len(log), at=1)
    for reader in data.draw(st.lists(st.sampled_from("abc"), min_size=1, unique=True)):
        _read_all(checker, reader, log, data.draw(st.sets(st.integers(1, len(log)))))
    checker.conclude(RUN)

    assert checker.findings.kept == []


def _read_all(checker: Checker, reader: str, log: list[bytes | None], drops_after: set[int]) -> None:
    checker.open(RUN, reader, 0, at=0)
    for seq, content in enumerate(log, 1):
        checker.see(RUN, reader, seq, content, b"%d" % seq, at=2, last=seq == len(log))
        if seq in drops_after:
            checker.drop(RUN, reader)
            checker.open(RUN, reader, seq, at=2)
    checker.end(RUN, reader, len(log))
