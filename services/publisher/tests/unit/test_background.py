"""What runs beside the relay: purge, gauges, readiness."""

import asyncio

import pytest
import structlog

from juinie_publisher.core.backlog import watch_backlog
from juinie_publisher.core.purge import purge
from juinie_publisher.edges.health import Health
from juinie_publisher.store.outbox import Backlog
from juinie_shared.domain.errors import DatabaseAway, DevKeyOutsideDev, SchemaBehind


async def test_purge_goes_on_until_nothing_is_found(told, stopping):
    answers = [(True, False), (True, False), (True, True), (True, True)]

    class Runs:
        async def purge_some(self, _batch):
            if answers:
                return answers.pop(0)
            stopping.set()
            return False, False

    await purge(Runs(), told.telemetry, stopping)
    assert told.count("juinie_runs_purged_total") == 2


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


async def test_summary_is_written_only_when_something_was_published(told):
    with structlog.testing.capture_logs() as logs:
        told.telemetry.summary()
        told.telemetry.published([0.1, 0.2], 0.0, 5)
        told.telemetry.summary()
        told.telemetry.summary()
    assert [(line["rows"], line["events"]) for line in logs if line["event"] == "outbox_published"] == [
        (2, 5)
    ]


class World:
    """Postgres and Kafka as the readiness sees them."""

    database: Exception | None = None
    kafka = True

    async def check_database(self):
        if self.database:
            raise self.database

    async def is_kafka_reachable(self, _seconds):
        return self.kafka


@pytest.mark.parametrize(
    ("database", "kafka", "waits_for"),
    [
        (None, True, []),
        (None, False, ["Kafka does not answer."]),
        (DatabaseAway(), True, [DatabaseAway().message]),
        (SchemaBehind(None, "0001"), False, [SchemaBehind(None, "0001").message, "Kafka does not answer."]),
    ],
)
async def test_readiness_names_what_is_missing(told, stopping, monkeypatch, database, kafka, waits_for):
    monkeypatch.setattr("juinie_publisher.edges.health.EVERY_SECONDS", 0)
    world, told_of = World(), asyncio.Event()
    world.database, world.kafka = database, kafka
    monkeypatch.setattr(told.telemetry, "waiting_for", lambda _missing: told_of.set())
    health = Health(world.check_database, world.is_kafka_reachable, told.telemetry)
    assert await health.readiness() == ["starting"]
    watching = asyncio.create_task(health.watch(stopping))
    await told_of.wait()
    await asyncio.sleep(0)
    assert await health.readiness() == waits_for
    stopping.set()
    await watching
    assert await health.readiness() == ["stopping"]


async def test_development_key_outside_dev_ends_the_watch(told, stopping):
    world = World()
    world.database = DevKeyOutsideDev()
    with pytest.raises(DevKeyOutsideDev):
        await Health(world.check_database, world.is_kafka_reachable, told.telemetry).watch(stopping)
