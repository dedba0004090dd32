"""What becomes of a run that is due: every rule, at its moment and just before it."""

from datetime import UTC, datetime, timedelta

import pytest

from juinie_publisher.core.judge import Rules, judge
from juinie_publisher.store.due_runs import DueRun
from juinie_shared.domain.ids import new_run_id
from juinie_shared.domain.runs import RunStatus

NOW = datetime(2026, 11, 23, 12, tzinfo=UTC)
RULES = Rules(max_attempts=3, cancel_grace=timedelta(seconds=30))
PASSED, COMING = NOW - timedelta(microseconds=1), NOW + timedelta(microseconds=1)


def at(seconds):
    return NOW + timedelta(seconds=seconds)


def run(**changes):
    """A run that works without a lease; nothing about it is due before a day from now."""
    standing = {
        "run_id": new_run_id(), "status": "running", "deleted": False, "attempt": 1, "cancel_requested_at": None,
        "lease_expires_at": None, "deadline_at": at(86_400), "idle_at": at(90_000), "now": NOW, **changes,
    }  # fmt: skip
    return DueRun(**{**standing, "status": RunStatus(standing["status"])})


def ended(change):
    """The new status, the error, and the event that says both."""
    return change.status, change.error, change.event.type, change.event.data, change.due_at


@pytest.mark.parametrize("status", ["success", "error", "cancelled", "timeout"])
def test_run_that_ended_is_never_looked_at_again(status):
    verdict, change = judge(run(status=status, deadline_at=PASSED, lease_expires_at=PASSED), RULES)
    assert (verdict, change.due_at, change.status, change.event) == ("over", None, None, None)


def test_deleted_run_is_never_looked_at_again():
    verdict, change = judge(run(deleted=True, deadline_at=PASSED), RULES)
    assert (verdict, change.due_at, change.status, change.event) == ("over", None, None, None)


@pytest.mark.parametrize(
    "standing",
    [
        {"status": "pending", "attempt": 0},
        {"status": "pending", "attempt": 2},
        {"status": "running"},
        {"status": "running", "lease_expires_at": COMING},
        {"status": "running", "lease_expires_at": PASSED},
        {"status": "running", "idle_at": PASSED},
        {"status": "running", "cancel_requested_at": at(-60)},
    ],
)
def test_run_past_its_deadline_times_out_whatever_else_it_is(standing):
    verdict, change = judge(run(deadline_at=NOW, **standing), RULES)
    assert verdict == "deadline"
    assert ended(change) == (
        "timeout", '{"code":"deadline"}', "run.finished",
        '{"status":"timeout","output":null,"error":{"code":"deadline"}}', None,
    )  # fmt: skip


@pytest.mark.parametrize(
    "standing",
    [
        {"cancel_requested_at": at(-30)},
        {"cancel_requested_at": at(-30), "lease_expires_at": COMING},
        {"cancel_requested_at": at(-1), "lease_expires_at": PASSED},
        {"cancel_requested_at": at(-1), "lease_expires_at": PASSED, "attempt": 3},
        {"cancel_requested_at": at(-1), "idle_at": PASSED},
        {"cancel_requested_at": at(-1), "status": "pending", "attempt": 1},
    ],
)
def test_cancelled_run_ends_when_its_grace_is_over_or_nobody_works_on_it(standing):
    verdict, change = judge(run(**standing), RULES)
    assert verdict == "cancelled"
    assert ended(change) == (
        "cancelled", None, "run.finished", '{"status":"cancelled","output":null,"error":null}', None,
    )  # fmt: skip


@pytest.mark.parametrize("attempt", [1, 2])
def test_run_whose_lease_ran_out_goes_back_to_pending(attempt):
    verdict, change = judge(run(lease_expires_at=NOW, attempt=attempt, idle_at=PASSED), RULES)
    assert verdict == "retried"
    assert (change.status, change.error, change.due_at) == ("pending", None, at(86_400))
    assert (change.event.type, change.event.data) == ("run.lease_expired", f'{{"attempt":{attempt}}}')


@pytest.mark.parametrize("attempt", [3, 4])
def test_lease_of_the_last_attempt_ends_the_run(attempt):
    verdict, change = judge(run(lease_expires_at=NOW, attempt=attempt), RULES)
    assert verdict == "lease_expired"
    assert ended(change) == (
        "error", '{"code":"lease_expired"}', "run.finished",
        '{"status":"error","output":null,"error":{"code":"lease_expired"}}', None,
    )  # fmt: skip


def test_silent_run_without_a_lease_ends():
    verdict, change = judge(run(idle_at=NOW), RULES)
    assert verdict == "idle"
    assert ended(change) == (
        "error", '{"code":"idle"}', "run.finished",
        '{"status":"error","output":null,"error":{"code":"idle"}}', None,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("standing", "next_look"),
    [
        ({"deadline_at": COMING}, COMING),
        ({"idle_at": COMING}, COMING),
        ({"lease_expires_at": COMING}, COMING),
        ({"lease_expires_at": at(50), "idle_at": PASSED}, at(50)),
        ({"cancel_requested_at": at(-29)}, at(1)),
        ({"cancel_requested_at": at(-29), "lease_expires_at": at(0.5)}, at(0.5)),
        ({"status": "pending", "attempt": 0, "idle_at": PASSED}, at(86_400)),
        ({"status": "pending", "attempt": 1, "idle_at": PASSED}, at(86_400)),
    ],
)
def test_run_with_nothing_to_do_is_looked_at_again_at_its_next_moment(standing, next_look):
    verdict, change = judge(run(**standing), RULES)
    assert verdict == "later"
    assert (change.due_at, change.status, change.event) == (next_look, None, None)
