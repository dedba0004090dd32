"""The sweeper's loop: when it looks, what it does with a run that cannot be swept, and what it tells."""

import asyncio
from datetime import UTC, datetime, timedelta

import pytest
import structlog

from juinie_publisher.core import sweep
from juinie_publisher.core.judge import Rules
from juinie_publisher.core.sweep import Sweeper, watch_overdue
from juinie_publisher.store.due_runs import DueRun
from juinie_shared.domain.errors import DatabaseAway
from juinie_shared.domain.ids import new_run_id
from juinie_shared.domain.runs import RunStatus

NOW = datetime(2026, 11, 23, 12, tzinfo=UTC)


def idle_run():
    return DueRun(
        new_run_id(), RunStatus.RUNNING, False, 1, None, None, NOW + timedelta(days=1), NOW, NOW
    )  # fmt: skip


class FakeDueRuns:
    """Due runs in memory. Those in `broken` fail whatever transaction they are in; `away` fails the next looks."""

    def __init__(self, *runs, broken=(), away=0):
        self.due = {run.run_id: run for run in runs}
        self.broken = set(broken)
        self.away = away
        self.changes, self.put_back, self.traces = {}, [], []

    async def sweep(self, batch, decide):
        if self.away:
            self.away -= 1
            raise DatabaseAway
        return self._sweep(list(self.due.values())[:batch], decide)

    async def sweep_one(self, run_id, decide):
        return self._sweep([self.due[run_id]] if run_id in self.due else [], decide)

    async def find_due(self, limit):
        return list(self.due)[:limit]

    async def put_off(self, run_id, seconds):
        self.put_back.append((run_id, seconds))
        del self.due[run_id]

    async def count_overdue(self, _seconds):
        if self.away:
            self.away -= 1
            raise DatabaseAway
        return len(self.due)

    def _sweep(self, runs, decide):
        decision = decide(runs)
        if self.broken & {run.run_id for run in runs}:
            raise ValueError("this row")
        for run, change in zip(runs, decision.changes, strict=True):
            del self.due[run.run_id]
            self.changes[run.run_id] = change.status
            self.traces.append(decision.traceparent)
        return len(runs)


@pytest.fixture
def sweeper_of(told):
    def make(runs, has_duty=lambda: True):
        return Sweeper(runs, Rules(), has_duty, told.telemetry, every_seconds=0)

    return make


async def test_full_batch_says_that_more_may_be_due(sweeper_of, monkeypatch, told):
    monkeypatch.setattr(sweep, "BATCH", 2)
    runs = FakeDueRuns(*(idle_run() for _ in range(3)))
    sweeper = sweeper_of(runs)
    assert [await sweeper.round(), await sweeper.round(), len(runs.due)] == [True, False, 0]
    assert told.count("juinie_sweep_runs_total", verdict="idle") == 3


async def test_one_bad_run_holds_up_no_other(sweeper_of, told):
    good, bad, behind = idle_run(), idle_run(), idle_run()
    runs = FakeDueRuns(good, bad, behind, broken={bad.run_id})
    with structlog.testing.capture_logs() as logs:
        await sweeper_of(runs).round()
    assert runs.changes == {good.run_id: "error", behind.run_id: "error"}
    assert runs.put_back == [(bad.run_id, 60.0)]
    assert told.count("juinie_sweep_failures_total") == 1
    assert told.count("juinie_sweep_runs_total", verdict="idle") == 2, "what was rolled back is not counted"
    (line,) = [line for line in logs if line["event"] == "run_not_swept"]
    assert (line["log_level"], line["run_id"], line["reason"]) == ("error", str(bad.run_id), "ValueError")


async def test_database_that_is_away_is_waited_for(sweeper_of, told, stopping):
    runs = FakeDueRuns(idle_run(), away=2)

    def until_swept():
        if not runs.due:
            stopping.set()
        return True

    await sweeper_of(runs, until_swept).run(stopping)
    assert list(runs.changes.values()) == ["error"]
    assert told.count("juinie_publisher_failures_total", part="sweep", reason="DatabaseAway") == 2
    assert told.count("juinie_sweep_failures_total") == 0


async def test_who_has_not_the_duty_does_not_look(sweeper_of, stopping):
    runs = FakeDueRuns(idle_run())
    answers = [False, False, True]

    def has_duty():
        if len(answers) == 1:
            stopping.set()
        assert bool(runs.due) or not answers
        return answers.pop(0)

    await sweeper_of(runs, has_duty).run(stopping)
    assert not runs.due


async def test_events_of_a_sweep_carry_the_trace_of_its_span(sweeper_of, told):
    runs = FakeDueRuns(idle_run(), idle_run())
    await sweeper_of(runs).round()
    (span,) = told.spans.get_finished_spans()
    assert span.name == "sweep"
    trace_id, span_id = f"{span.context.trace_id:032x}", f"{span.context.span_id:016x}"
    assert [trace[:53] for trace in runs.traces] == [f"00-{trace_id}-{span_id}-"[:53]] * 2


async def test_sweep_that_tells_nobody_anything_has_no_span(sweeper_of, told):
    run = idle_run()
    finished = DueRun(run.run_id, RunStatus.SUCCESS, False, 1, None, None, run.deadline_at, run.idle_at, NOW)
    await sweeper_of(FakeDueRuns(finished)).round()
    assert told.spans.get_finished_spans() == ()
    assert told.count("juinie_sweep_runs_total", verdict="over") == 1


async def test_gauge_shows_runs_that_nobody_swept(told, stopping):
    runs = FakeDueRuns(idle_run(), idle_run(), away=1)
    watching = asyncio.create_task(watch_overdue(runs, told.telemetry, stopping, 0))
    while told.count("juinie_runs_overdue") != 2:
        await asyncio.sleep(0)
    stopping.set()
    await watching
