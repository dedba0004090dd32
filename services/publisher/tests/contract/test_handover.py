"""Publishers as processes: one is stopped in good order, one is paused beyond its lease and wakes up."""

import asyncio
import os

import pytest

from juinie_publisher.core.doorbell import Doorbell
from juinie_publisher.core.relay import Relay
from juinie_publisher.edges.kafka import KafkaTopic
from juinie_publisher.edges.topic_admin import TopicPlan
from juinie_publisher.store.dead_letters import DeadLetterStore
from juinie_publisher.store.outbox import OutboxStore
from juinie_shared.contracts.record import read_record
from juinie_testkit.backing.docker import free_port
from juinie_testkit.kafka import read_topic
from juinie_testkit.scrape import metric
from juinie_testkit.seed import Seed
from juinie_testkit.stack import ServiceProcess
from juinie_testkit.waits import eventually

pytestmark = pytest.mark.timeout(240)

RUNS = 24
"""Spread over shards of both publishers."""
PATIENTLY = 60
DUTIES_OF_NOBODY = "SELECT count(*) FROM duty WHERE publisher_id IS NULL"
MEMBERS = "SELECT count(*) FROM publisher"


@pytest.fixture
def make_publisher(database_url, kafka_bootstrap_servers, kafka_topic, tmp_path):
    made = []

    def of(name):
        port = free_port()
        environment = {
            **os.environ,
            "DATABASE_URL": database_url,
            "KAFKA_BOOTSTRAP_SERVERS": kafka_bootstrap_servers,
            "JUINIE_KAFKA_TOPIC": kafka_topic,
            "JUINIE_KAFKA_PARTITIONS": "3",
            "JUINIE_ENV": "test",
            "JUINIE_PUBLISHER_PORT": str(port),
        }
        made.append(ServiceProcess(name, "juinie_publisher", port, environment, tmp_path / f"{name}.log"))
        return made[-1]

    yield of
    for process in made:
        process.end()


@pytest.fixture
def seed(pool):
    return Seed(pool, notify=True)


async def holds(process, shards):
    async def so_many():
        return await metric(process.url, "juinie_publisher_shards") == shards

    await eventually(so_many, PATIENTLY, f"{process.name} holds {shards} shards")


async def ask(pool, query):
    async with pool.connection() as connection:
        return await connection.fetchval(query)


async def two_that_share(make_publisher):
    first, second = make_publisher("first"), make_publisher("second")
    await asyncio.gather(first.start(), second.start())
    await holds(first, 32)
    await holds(second, 32)
    return first, second


async def append_to_all(seed, runs, times, begun=None):
    """`begun` is set when each run has the first of them."""
    for number in range(times):
        await asyncio.gather(*(seed.append(run, ("token", number)) for run in runs))
        if begun:
            begun.set()


async def flushed(pool):
    async def empty():
        return await ask(pool, "SELECT count(*) = 0 FROM outbox")

    await eventually(empty, PATIENTLY, "an empty outbox")


async def first_times(servers, topic, at_least):
    seen = {}
    for record in await read_topic(servers, topic, lambda records: len(records) >= at_least, PATIENTLY):
        event = read_record(record.key, record.value, record.headers)
        seen.setdefault(event.run_id, {}).setdefault(event.seq)
    return {run_id: list(seqs) for run_id, seqs in seen.items()}


async def test_publisher_that_is_stopped_has_given_everything_back_when_it_exits(pool, make_publisher, seed):
    first, second = await two_that_share(make_publisher)
    second.freeze()  # so that what is given back stays where it is
    assert await first.stop(timeout_seconds=10) == 0
    assert await ask(pool, DUTIES_OF_NOBODY) >= 32
    assert await ask(pool, MEMBERS) == 1
    second.thaw()
    await holds(second, 64)
    await seed.run("a")
    await flushed(pool)


async def test_paused_publisher_is_taken_over_and_does_no_harm_when_it_wakes(
    pool, make_publisher, seed, kafka_bootstrap_servers, kafka_topic
):
    first, second = await two_that_share(make_publisher)
    key = await seed.key()
    runs = [await seed.run(key) for _ in range(RUNS)]
    await append_to_all(seed, runs, 5)
    begun = asyncio.Event()
    writing = asyncio.create_task(append_to_all(seed, runs, 5, begun))
    await begun.wait()
    assert not writing.done()
    first.freeze()  # in the midst of it
    await writing
    await holds(second, 64)
    await flushed(pool)
    writing = asyncio.create_task(append_to_all(seed, runs, 10))
    first.thaw()
    await writing
    await holds(first, 32)
    await holds(second, 32)
    await append_to_all(seed, runs, 5)
    await flushed(pool)
    assert await metric(first.url, "juinie_duties_lost_total") >= 32
    assert await first_times(kafka_bootstrap_servers, kafka_topic, RUNS * 26) == {
        run: list(range(1, 27)) for run in runs
    }


async def test_publisher_of_the_version_before_that_knows_no_duties_only_adds_copies(
    pool, make_publisher, seed, kafka_bootstrap_servers, kafka_topic, told
):
    """It relays all shards, as this relay does when nobody tells it which are its own."""
    new = make_publisher("new")
    await new.start()
    topic = KafkaTopic(kafka_bootstrap_servers, TopicPlan(kafka_topic, 3, 1), lambda: None)
    stopping = asyncio.Event()
    old = asyncio.create_task(
        Relay(OutboxStore(pool), DeadLetterStore(pool), topic, Doorbell(), told.telemetry).run(stopping)
    )
    key = await seed.key()
    runs = [await seed.run(key) for _ in range(RUNS)]
    await append_to_all(seed, runs, 10)
    await flushed(pool)
    stopping.set()
    await old
    await topic.close()
    assert await first_times(kafka_bootstrap_servers, kafka_topic, RUNS * 11) == {
        run: list(range(1, 12)) for run in runs
    }
