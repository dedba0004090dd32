"""A broker that accepts and never answers, or hangs up: it is away, and nothing of ours stays open."""

import asyncio
import gc
import warnings
from contextlib import asynccontextmanager

import pytest

from juinie_publisher.edges.kafka import KafkaTopic
from juinie_publisher.edges.topic_admin import TopicPlan
from juinie_shared.domain.errors import KafkaAway


@asynccontextmanager
async def broker(answer):
    """A server that does `answer(reader, writer)` with whoever connects, and closes them all in the end."""
    writers = []

    async def accept(reader, writer):
        writers.append(writer)
        await answer(reader, writer)

    server = await asyncio.start_server(accept, "127.0.0.1", 0)
    try:
        yield f"127.0.0.1:{server.sockets[0].getsockname()[1]}"
    finally:
        server.close()
        for writer in writers:
            writer.transport.abort()


async def never_answer(reader, _writer):
    await reader.read(-1)


async def hang_up(reader, writer):
    await reader.read(10)
    writer.transport.abort()


@pytest.fixture(autouse=True)
def _quick(monkeypatch):
    """The waits of a start, in their proportions: a start may take longer than we wait for it."""
    monkeypatch.setattr("juinie_publisher.edges.kafka.REQUEST_SECONDS", 0.4)
    monkeypatch.setattr("juinie_publisher.edges.kafka.CONNECT_SECONDS", 0.5)


async def assert_away_and_nothing_left(servers, topic):
    """aiokafka tells of a connection that nobody closed when it is collected."""
    target = KafkaTopic(servers, TopicPlan(topic, 1, 1), lambda: None)
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        for _ in range(2):
            with pytest.raises(KafkaAway):
                await target.connect()
        await target.close()
        del target
        gc.collect()
        await asyncio.sleep(0)
    assert [str(warning.message) for warning in told if warning.category is ResourceWarning] == []


async def test_broker_that_never_answers(kafka_topic):
    async with broker(never_answer) as servers:
        await assert_away_and_nothing_left(servers, kafka_topic)


async def test_several_brokers_that_never_answer_take_longer_than_we_wait(kafka_topic):
    async with broker(never_answer) as one, broker(never_answer) as two, broker(never_answer) as three:
        await assert_away_and_nothing_left(f"{one},{two},{three}", kafka_topic)


async def test_broker_that_hangs_up(kafka_topic):
    async with broker(hang_up) as servers:
        await assert_away_and_nothing_left(servers, kafka_topic)


async def test_broker_that_falls_silent_in_mid_start(kafka_topic, kafka_bootstrap_servers, monkeypatch):
    """It answers what versions it speaks, and then nothing: the connection that is lost when its start is cut."""
    host, port = kafka_bootstrap_servers.split(",")[0].rsplit(":", 1)

    async def answer_once(reader, writer):
        theirs_reader, theirs_writer = await asyncio.open_connection(host, int(port))
        try:
            size = await reader.readexactly(4)
            theirs_writer.write(size + await reader.readexactly(int.from_bytes(size)))
            size = await theirs_reader.readexactly(4)
            writer.write(size + await theirs_reader.readexactly(int.from_bytes(size)))
            await reader.read(-1)
        finally:
            theirs_writer.transport.abort()

    # As behind a broker that took most of our time: we stop waiting while this one owes its second answer.
    monkeypatch.setattr("juinie_publisher.edges.kafka.CONNECT_SECONDS", 0.2)
    async with broker(answer_once) as servers:
        await assert_away_and_nothing_left(servers, kafka_topic)
