"""Retention's loop: whose turn it is, how it rests, and what a tenant whose batch fails does to the others."""

from datetime import timedelta

import pytest
import structlog

from juinie_publisher.core import retention
from juinie_publisher.core.retention import EVENTS, RUNS, Retention
from juinie_publisher.store.kept_runs import Kept, Removed
from juinie_shared.domain.errors import DatabaseAway, DatabaseBusy, RunLocked
from juinie_shared.domain.ids import TenantId, new_uuid7

DAY = timedelta(days=1)


class FakeKeptRuns:
    """Tenants with so many old events and runs each; those in `broken` fail; `away` fails the next looks."""

    def __init__(self, events=None, runs=None, broken=(), away=0, error=ValueError):
        self.events, self.runs = dict(events or {}), dict(runs or {})
        self.broken, self.away, self.error = broken, away, error
        self.done = []

    async def tenants(self):
        if self.away:
            self.away -= 1
            raise DatabaseAway
        owners = dict.fromkeys([*self.events, *self.runs])
        return [
            Kept(own, DAY if own in self.events else None, DAY if own in self.runs else None)
            for own in owners
        ]

    async def remove_events(self, tenant_id, _after, batch):
        if tenant_id in self.broken:
            raise self.error("this tenant")
        taken = min(batch, self.events[tenant_id])
        self.events[tenant_id] -= taken
        self.done.append((tenant_id, "events", taken))
        return Removed(taken, 1 if taken else 0)

    async def bury_runs(self, tenant_id, _after, batch):
        taken = min(batch, self.runs[tenant_id])
        self.runs[tenant_id] -= taken
        self.done.append((tenant_id, "runs", taken))
        return taken


@pytest.fixture
def tenants():
    return [TenantId(new_uuid7()) for _ in range(2)]


@pytest.fixture
def retention_of(told):
    def make(runs, has_duty=lambda: True, clock=lambda: 0.0):
        return Retention(runs, has_duty, told.telemetry, clock)

    return make


async def test_tenants_take_turns(retention_of, tenants, stopping, told):
    first, second = tenants
    runs = FakeKeptRuns(events={first: EVENTS + 1, second: 7}, runs={second: RUNS})
    cleaner = retention_of(runs)
    assert [await cleaner.round(stopping), await cleaner.round(stopping)] == [True, False]
    assert runs.done == [
        (first, "events", EVENTS), (second, "runs", RUNS), (second, "events", 7),
        (first, "events", 1), (second, "runs", 0), (second, "events", 0),
    ]  # fmt: skip
    assert told.count("juinie_retention_events_total") == EVENTS + 8
    assert told.count("juinie_retention_runs_total") == RUNS


@pytest.mark.parametrize("error", [ValueError, DatabaseBusy, RunLocked])
async def test_tenant_whose_batch_fails_or_takes_too_long_is_told_and_holds_up_no_other(
    retention_of, tenants, stopping, told, error
):
    first, second = tenants
    runs = FakeKeptRuns(events={first: 1, second: 1}, broken={first}, error=error)
    with structlog.testing.capture_logs() as logs:
        await retention_of(runs).round(stopping)
    assert runs.events == {first: 1, second: 0}
    assert told.count("juinie_retention_failures_total") == 1
    (line,) = [line for line in logs if line["event"] == "retention_failed"]
    assert (line["log_level"], line["tenant_id"], line["reason"]) == ("error", str(first), error.__name__)


async def test_database_that_is_away_is_waited_for_and_the_duty_too(
    retention_of, tenants, stopping, told, monkeypatch
):
    monkeypatch.setattr(retention, "EVERY_SECONDS", 0)
    runs = FakeKeptRuns(events={tenants[0]: 3}, away=1)
    answers = [False, True, True, True, True, False]

    def has_duty():
        if len(answers) == 1:
            stopping.set()
        return answers.pop(0)

    await retention_of(runs, has_duty).run(stopping)
    assert runs.events == {tenants[0]: 0}
    assert told.count("juinie_publisher_failures_total", part="retention", reason="DatabaseAway") == 1


async def test_duty_that_is_lost_ends_the_round(retention_of, tenants, stopping):
    first, second = tenants
    runs = FakeKeptRuns(events={first: EVENTS, second: EVENTS})
    assert await retention_of(runs, lambda: not runs.done).round(stopping) is False
    assert runs.done == [(first, "events", EVENTS)]


async def test_stop_is_heard_between_two_batches(retention_of, tenants, stopping):
    stopping.set()
    runs = FakeKeptRuns(events={tenants[0]: EVENTS})
    assert await retention_of(runs).round(stopping) is False
    assert runs.done == []


async def test_it_rests_several_times_as_long_as_a_batch_took(retention_of, tenants, stopping, monkeypatch):
    rests, clock = [], iter([10.0, 10.5, 20.0, 20.1])

    async def rest(_stopping, seconds):
        rests.append(round(seconds, 6))

    monkeypatch.setattr(retention, "pause", rest)
    await retention_of(FakeKeptRuns(events={tenants[0]: 1}), clock=lambda: next(clock)).round(stopping)
    assert rests == [2.0, 0.4]
