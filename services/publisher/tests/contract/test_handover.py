"""Publishers as processes: one is stopped in good order, one is paused beyond its lease and wakes up."""

import asyncio
import os
from datetime import timedelta

import pytest

from juinie_publisher.core.doorbell import Doorbell
from juinie_publisher.core.duties import DutyTimes
from juinie_publisher.core.relay import Relay
from juinie_publisher.edges.kafka import KafkaTopic
from juinie_publisher.edges.topic_admin import TopicPlan
from juinie_publisher.store.dead_letters import DeadLetterStore
from juinie_publisher.store.outbox import OutboxStore
from juinie_shared.contracts.record import read_record
from juinie_shared.domain.ids import SHARDS
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
LEASE = timedelta(seconds=DutyTimes().lease_seconds)
PROMISED_SECONDS = DutyTimes().lease_seconds + 2
"""From the moment at which a publisher falls silent, until another one has all that it had."""
NOW = "SELECT clock_timestamp()"
STANDING = """
    SELECT name, seen_at, (
        SELECT count(*) FROM duty WHERE duty.publisher_id = publisher.publisher_id AND shard IS NOT NULL
    ) AS shards FROM publisher
"""
"""One moment's. A publisher is seen, and takes or gives shards, in one transaction; `seen_at` is the database's time."""
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


async def standing(pool):
    """When each publisher was seen last and how many shards it has, by its process' id."""
    async with pool.connection() as connection:
        rows = await connection.fetch(STANDING)
    return {int(row["name"].rpartition(":")[2]): (row["seen_at"], row["shards"]) for row in rows}


async def taken_from_silent(pool, silent, by):
    """Wait until all shards are taken from one that fell silent, and see that its lease alone decides about when.

    Whatever the machine has time for: before the lease is over nothing is taken, and after it all in the first turn.
    Gives the database's time of that turn.
    """

    async def taken():
        seen = await standing(pool)
        (last_seen, _), (turn_at, shards) = seen[silent.pid], seen[by.pid]
        assert (turn_at - last_seen >= LEASE) == (shards == SHARDS), seen
        return turn_at if shards == SHARDS else None

    return await eventually(taken, 3 * PROMISED_SECONDS, f"{by.name} has all shards")


async def taken_from_leaving(pool, by):
    """Wait until all shards are taken. Gives the database's time of the turn that did it."""

    async def taken():
        turn_at, shards = (await standing(pool))[by.pid]
        return turn_at if shards == SHARDS else None

    return await eventually(taken, PATIENTLY, f"{by.name} has all shards")


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


async def test_what_a_stopped_publisher_had_is_taken_at_once(pool, make_publisher):
    first, second = await two_that_share(make_publisher)
    asked_at = await ask(pool, NOW)
    stopping = asyncio.create_task(first.stop(timeout_seconds=PATIENTLY))
    took = await taken_from_leaving(pool, second) - asked_at
    assert await stopping == 0
    print(f"{took.total_seconds():.2f} s from SIGTERM until the other one had all shards")  # noqa: T201 - read with -s
    assert took < LEASE / 2, "nobody waited for its lease to run out"


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
    frozen_at = await ask(pool, NOW)
    took = await taken_from_silent(pool, first, second) - frozen_at
    print(f"{took.total_seconds():.2f} s from SIGSTOP until the other one had all shards")  # noqa: T201 - read with -s
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
