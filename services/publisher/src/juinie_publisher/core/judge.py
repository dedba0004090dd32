"""What becomes of a run that is due. Pure: a run as it stands under its lock, and the rules, give the change.

    the run ended or is deleted          →  never looked at again
    deadline_at has passed               →  timeout      code: deadline
    cancel was asked for, and nobody
      works on it, or the grace is over  →  cancelled
    its lease has run out                →  pending, run.lease_expired; after `max_attempts`: error, code: lease_expired
    no lease, and silent for too long    →  error        code: idle
    else                                 →  looked at again at the first of these moments

The first line that holds decides.
"""

from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum

from juinie_publisher.store.due_runs import Change, DueRun
from juinie_shared.contracts.run_event_data import finished_data, lease_expired_data
from juinie_shared.domain.events import RUN_FINISHED, RUN_LEASE_EXPIRED, NewEvent
from juinie_shared.domain.runs import RunStatus


class Verdict(StrEnum):
    """Why a run was changed as it was. Also the label under which it is counted."""

    OVER = "over"
    DEADLINE = "deadline"
    CANCELLED = "cancelled"
    RETRIED = "retried"
    LEASE_EXPIRED = "lease_expired"
    IDLE = "idle"
    LATER = "later"


@dataclass(frozen=True, slots=True)
class Rules:
    """How often a run is tried, and how long a worker has to answer a cancel."""

    max_attempts: int = 3
    cancel_grace: timedelta = timedelta(seconds=30)


def judge(run: DueRun, rules: Rules) -> tuple[Verdict, Change]:
    """What becomes of this run now, and why."""
    if run.deleted or run.status.terminal:
        return Verdict.OVER, Change(due_at=None)
    if run.deadline_at <= run.now:
        return _failed(Verdict.DEADLINE, RunStatus.TIMEOUT)
    if _is_cancelled(run, rules):
        return Verdict.CANCELLED, _ended(RunStatus.CANCELLED, None)
    if _lease_ran_out(run):
        return _without_worker(run, rules)
    if _is_idle(run):
        return _failed(Verdict.IDLE, RunStatus.ERROR)
    return Verdict.LATER, Change(due_at=_next_moment(run, rules))


def _is_cancelled(run: DueRun, rules: Rules) -> bool:
    """A cancel was asked for, and whoever might answer it is not there, or has had its time."""
    if run.cancel_requested_at is None:
        return False
    nobody_works = run.status is RunStatus.PENDING or _lease_ran_out(run) or _is_idle(run)
    return nobody_works or run.cancel_requested_at + rules.cancel_grace <= run.now


def _lease_ran_out(run: DueRun) -> bool:
    return run.lease_expires_at is not None and run.lease_expires_at <= run.now


def _is_idle(run: DueRun) -> bool:
    """Runs that wait for a worker are not idle, and a lease says itself whether its holder lives."""
    return run.status is RunStatus.RUNNING and run.lease_expires_at is None and run.idle_at <= run.now


def _without_worker(run: DueRun, rules: Rules) -> tuple[Verdict, Change]:
    if run.attempt >= rules.max_attempts:
        return _failed(Verdict.LEASE_EXPIRED, RunStatus.ERROR)
    event = NewEvent(RUN_LEASE_EXPIRED, lease_expired_data(run.attempt))
    return Verdict.RETRIED, Change(run.deadline_at, RunStatus.PENDING, event=event)


def _failed(verdict: Verdict, status: RunStatus) -> tuple[Verdict, Change]:
    """The end of a run that nobody brought there: its error's code is the verdict."""
    return verdict, _ended(status, f'{{"code":"{verdict.value}"}}')


def _ended(status: RunStatus, error: str | None) -> Change:
    event = NewEvent(RUN_FINISHED, finished_data(status, None, error))
    return Change(None, status, error, event)


def _next_moment(run: DueRun, rules: Rules) -> datetime:
    moments = [run.deadline_at]
    if run.cancel_requested_at is not None:
        moments.append(run.cancel_requested_at + rules.cancel_grace)
    if run.status is RunStatus.RUNNING:
        moments.append(run.lease_expires_at or run.idle_at)
    return min(moments)
