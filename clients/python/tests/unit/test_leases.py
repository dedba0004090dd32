"""The checker finds each planted bug in how a run goes from worker to worker, and nothing where all is right."""

import pytest

from juinie.torture.checker import Checker
from juinie.torture.findings import Kind
from juinie.torture.leases import EXPIRED, STARTED, Turn

RUN = "run"

type Logged = bytes | Turn | None

CREATED = None
ENDED = None


class Story:
    """A run that `ann` has first (a0, a1), whose lease runs out, and that `bob` ends (b0). A test tells a part of it wrongly."""

    def __init__(self) -> None:
        self.checker = Checker()
        self.log: list[Logged] = [
            CREATED, Turn(STARTED, 1, "ann"), b"a0", b"a1", Turn(EXPIRED, 1),
            Turn(STARTED, 2, "bob"), b"b0", ENDED,
        ]  # fmt: skip
        self.checker.claim(RUN, 1, "ann")
        self.checker.send(RUN, "a", [b"a0", b"a1"], attempt=1)
        self.checker.claim(RUN, 2, "bob")
        self.checker.send(RUN, "b", [b"b0"], attempt=2)

    def found(self) -> set[Kind]:
        """All is seen by one watcher, and concluded; the kinds that were found."""
        self.checker.open(RUN, "w", 0, at=0)
        for seq, logged in enumerate(self.log, 1):
            turn = logged if isinstance(logged, Turn) else None
            content = logged if isinstance(logged, bytes) else None
            self.checker.see(RUN, "w", seq, content, b"%d" % seq, 1, seq == len(self.log), turn)
        self.checker.finish(RUN, len(self.log), at=1)
        self.checker.end(RUN, "w", len(self.log))
        self.checker.conclude(RUN)
        return set(self.checker.findings.counts)


@pytest.fixture
def story() -> Story:
    return Story()


def test_run_that_goes_from_one_worker_to_the_next_has_no_finding(story: Story) -> None:
    story.checker.lose_lease(RUN, 1)

    assert story.found() == set()


def test_run_that_programs_without_a_lease_write_to_has_no_finding() -> None:
    story = Story.__new__(Story)
    story.checker, story.log = Checker(), [CREATED, Turn(STARTED, 1), b"p0", ENDED]
    story.checker.send(RUN, "p", [b"p0"])

    assert story.found() == set()


def test_event_after_its_lease_ran_out_is_found(story: Story) -> None:
    story.log[3:5] = [Turn(EXPIRED, 1), b"late"]
    story.checker.send(RUN, "late", [b"late"], attempt=1)

    assert Kind.FENCED in story.found()


def test_event_of_the_last_holder_under_the_next_is_found(story: Story) -> None:
    story.log.insert(6, b"late")
    story.checker.send(RUN, "late", [b"late"], attempt=1)

    assert story.found() == {Kind.FENCED}


def test_event_that_was_sent_after_the_lease_was_lost_is_found_wherever_it_stands(story: Story) -> None:
    story.checker.lose_lease(RUN, 1)
    story.checker.send(RUN, "late", [b"late"], attempt=1)
    story.log.insert(3, b"late")
    story.log[2:4] = [b"late", b"a0"]

    assert story.found() == {Kind.FENCED}


def test_start_before_the_last_lease_expired_is_found(story: Story) -> None:
    story.log[3:6] = [b"a1", Turn(STARTED, 2, "bob"), Turn(EXPIRED, 1)]

    assert Kind.TWO_HOLDERS in story.found()


def test_start_without_the_end_of_the_last_lease_is_found(story: Story) -> None:
    del story.log[4]

    assert story.found() == {Kind.TWO_HOLDERS}


def test_attempt_that_is_given_to_two_workers_is_found(story: Story) -> None:
    story.checker.claim(RUN, 2, "cem")

    assert story.found() == {Kind.TWO_HOLDERS}


def test_start_that_names_another_worker_than_was_told_is_found(story: Story) -> None:
    story.log[5] = Turn(STARTED, 2, "cem")

    assert story.found() == {Kind.TWO_HOLDERS}


@pytest.mark.parametrize("attempt", [1, 3], ids=["the same again", "one left out"])
def test_attempt_that_does_not_rise_by_one_is_found(story: Story, attempt: int) -> None:
    story.log[5] = Turn(STARTED, attempt, "bob")

    assert Kind.WRONG_ATTEMPT in story.found()


def test_expiry_of_an_attempt_that_nobody_has_is_found(story: Story) -> None:
    story.log[4] = Turn(EXPIRED, 2)

    assert Kind.WRONG_ATTEMPT in story.found()


def test_claim_that_the_run_knows_nothing_of_is_found(story: Story) -> None:
    story.checker.claim(RUN, 3, "cem")

    assert story.found() == {Kind.WRONG_ATTEMPT}


def test_run_that_nobody_ends_after_its_last_lease_is_found(story: Story) -> None:
    story.checker.open(RUN, "w", 0, at=0)
    story.checker.conclude(RUN)

    assert Kind.END_MISSING in story.checker.findings.counts
