"""Kafka gathers while records come anyway, and the first after a rest comes at once: with aiokafka as it is, and a real broker."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from aiokafka import AIOKafkaConsumer, TopicPartition

from juinie_stream_gateway.edges.linger import Linger
from juinie_testkit.kafka import create_topic, producer_of

AN_HOUR = 3600.0
"""What gathers for so long is seen not to come."""
GIVEN_UP_SECONDS = 30


@pytest.fixture
async def partition(kafka_bootstrap_servers: str, kafka_topic: str) -> TopicPartition:
    await create_topic(kafka_bootstrap_servers, kafka_topic, partitions=1)
    return TopicPartition(kafka_topic, 0)


@asynccontextmanager
async def reading(bootstrap_servers: str, partition: TopicPartition) -> AsyncGenerator[Any]:
    consumer: Any = AIOKafkaConsumer(
        bootstrap_servers=bootstrap_servers, group_id=None, enable_auto_commit=False, fetch_max_wait_ms=250
    )
    await consumer.start()
    try:
        consumer.assign([partition])
        consumer.seek(partition, 0)
        yield consumer
    finally:
        await consumer.stop()


async def records(linger: Linger) -> int:
    """How many the next poll brings that brings any."""
    async with asyncio.timeout(GIVEN_UP_SECONDS):
        while not (batches := await linger.poll()):
            pass
    return sum(map(len, batches.values()))


async def test_while_records_come_kafka_gathers_them(kafka_bootstrap_servers, partition) -> None:
    """Of two hundred that come one by one, no more than there are fetches of a second each, and two before them."""
    async with (
        producer_of(kafka_bootstrap_servers) as producer,
        reading(kafka_bootstrap_servers, partition) as consumer,
    ):
        linger = Linger(consumer, 1.0)
        began = asyncio.get_running_loop().time()

        async def read_all() -> list[int]:
            brought: list[int] = []
            while sum(brought) < 200:
                brought.append(await records(linger))
            return brought

        reader = asyncio.create_task(read_all())
        for _ in range(200):
            await producer.send_and_wait(partition.topic, b"value", partition=0)
        brought = await reader
        assert len(brought) <= 3 + asyncio.get_running_loop().time() - began


async def test_the_next_fetch_leaves_before_what_came_is_handed_on(
    kafka_bootstrap_servers, partition
) -> None:
    async with (
        producer_of(kafka_bootstrap_servers) as producer,
        reading(kafka_bootstrap_servers, partition) as consumer,
    ):
        asked: list[int] = []
        send = consumer._client.send

        def note(node_id: int, request: Any, **options: Any) -> Any:
            asked.append(getattr(request, "_max_wait_ms", 0))
            return send(node_id, request, **options)

        consumer._client.send = note
        linger = Linger(consumer, AN_HOUR)
        await producer.send_and_wait(partition.topic, b"value", partition=0)
        await records(linger)
        assert linger.gathers
        assert asked[-1] == AN_HOUR * 1000


async def test_without_a_linger_nothing_is_gathered(kafka_bootstrap_servers, partition) -> None:
    async with (
        producer_of(kafka_bootstrap_servers) as producer,
        reading(kafka_bootstrap_servers, partition) as consumer,
    ):
        fetcher = consumer._fetcher
        linger = Linger(consumer, 0.0)
        for _ in range(20):
            await producer.send_and_wait(partition.topic, b"value", partition=0)
            assert await records(linger) == 1
            assert not linger.gathers
            assert (fetcher._fetch_max_wait_ms, fetcher._fetch_min_bytes) == (250, 1)


async def test_the_first_after_a_rest_waits_for_no_other(kafka_bootstrap_servers, partition) -> None:
    """It gathers for half a second, of which one goes by without a record; then an hour would not be enough for a second one."""
    async with (
        producer_of(kafka_bootstrap_servers) as producer,
        reading(kafka_bootstrap_servers, partition) as consumer,
    ):
        linger = Linger(consumer, 0.5)
        await producer.send_and_wait(partition.topic, b"value", partition=0)
        assert await records(linger) == 1
        assert linger.gathers
        async with asyncio.timeout(GIVEN_UP_SECONDS):
            while linger.gathers:
                assert not await linger.poll()
        linger._gathering = int(AN_HOUR * 1000), 1 << 30
        await asyncio.sleep(0.6)  # the last of the fetches that gather is over
        await producer.send_and_wait(partition.topic, b"value", partition=0)
        assert await records(linger) == 1
