"""What runs beside the relay: purge and gauges."""

import structlog

from juinie_publisher.core.backlog import watch_backlog
from juinie_publisher.core.purge import purge
from juinie_publisher.store.outbox import Backlog
from juinie_shared.domain.errors import DatabaseAway


async def test_purge_goes_on_until_nothing_is_found(told, stopping):
    answers = [(True, False), (True, False), (True, True), (True, True)]

    class Runs:
        async def purge_some(self, _batch):
            if answers:
                return answers.pop(0)
            stopping.set()
            return False, False

    await purge(Runs(), lambda: True, told.telemetry, stopping)
    assert told.count("juinie_runs_purged_total") == 2


async def test_purge_looks_for_nothing_without_the_duty(told, stopping):
    def has_duty():
        stopping.set()
        return False

    class Runs:
        async def purge_some(self, _batch):
            raise AssertionError

    await purge(Runs(), has_duty, told.telemetry, stopping)


async def test_gauges_follow_the_outbox_and_outlive_a_database_that_is_away(told, stopping, monkeypatch):
    monkeypatch.setattr("juinie_publisher.core.backlog.EVERY_SECONDS", 0)
    answers = [Backlog(3, 1.5), None, Backlog(7, 9.5)]

    class Outbox:
        async def backlog(self):
            answer = answers.pop(0)
            if not answers:
                stopping.set()
            if answer is None:
                raise DatabaseAway
            return answer

    await watch_backlog(Outbox(), told.telemetry, stopping)
    assert told.count("juinie_outbox_pending") == 7
    assert told.count("juinie_outbox_oldest_age_seconds") == 9.5
    assert told.count("juinie_publisher_failures_total", part="backlog", reason="DatabaseAway") == 1


async def test_summary_is_written_only_when_something_was_published(told):
    with structlog.testing.capture_logs() as logs:
        told.telemetry.summary()
        told.telemetry.published([0.1, 0.2], 0.0, 5)
        told.telemetry.summary()
        told.telemetry.summary()
    assert [(line["rows"], line["events"]) for line in logs if line["event"] == "outbox_published"] == [
        (2, 5)
    ]
