"""Bare records are what aiokafka's own are, of whatever lies on a topic."""

from collections.abc import Sequence
from typing import Any

import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.record.default_records import DefaultRecord

from juinie_stream_gateway.edges.bare_records import give_bare_records
from juinie_testkit.kafka import create_topic, producer_of

HEADERS = [("ce_id", b"1"), ("none", None), ("empty", b""), ("é", b"\xff")]
RECORDS: list[tuple[bytes | None, bytes | None, list[Any]]] = [
    (b"key", b"value", HEADERS),
    (None, b"value", []),
    (b"key", None, HEADERS[:1]),
    (b"", b"", []),
    (b"key", b"x" * 100_000, HEADERS),
]


@pytest.fixture
async def partition(kafka_bootstrap_servers: str, kafka_topic: str) -> TopicPartition:
    await create_topic(kafka_bootstrap_servers, kafka_topic, partitions=1)
    return TopicPartition(kafka_topic, 0)


async def read(bootstrap_servers: str, partition: TopicPartition, count: int, *, bare: bool) -> list[Any]:
    """So many records from the start, few at a time, then one that was read before."""
    consumer: Any = AIOKafkaConsumer(
        bootstrap_servers=bootstrap_servers, group_id=None, enable_auto_commit=False
    )
    await consumer.start()
    try:
        if bare:
            give_bare_records(consumer)
        consumer.assign([partition])
        consumer.seek(partition, 0)
        records: list[Any] = []
        while len(records) < count:
            records += (await consumer.getmany(timeout_ms=5000, max_records=3)).get(partition, [])
        assert await consumer.position(partition) == records[-1].offset + 1
        consumer.seek(partition, 1)
        records += (await consumer.getmany(timeout_ms=5000, max_records=1))[partition]
        return records
    finally:
        await consumer.stop()


def facts(records: Sequence[Any]) -> list[tuple[object, ...]]:
    return [(record.offset, record.key, record.value, tuple(record.headers)) for record in records]


async def both_ways(bootstrap_servers: str, partition: TopicPartition, count: int) -> None:
    ours = await read(bootstrap_servers, partition, count, bare=True)
    theirs = await read(bootstrap_servers, partition, count, bare=False)
    assert facts(ours) == facts(theirs)
    assert len(ours) == count + 1
    assert {type(record) for record in ours} == {DefaultRecord}


@pytest.mark.parametrize("compression", [None, "gzip"])
async def test_they_have_the_same_offset_key_value_and_headers(
    kafka_bootstrap_servers: str, partition: TopicPartition, compression: str | None
) -> None:
    producer: Any = AIOKafkaProducer(bootstrap_servers=kafka_bootstrap_servers, compression_type=compression)
    await producer.start()
    try:
        for key, value, headers in RECORDS * 2:
            await producer.send(partition.topic, value, key, partition=0, headers=headers)
    finally:
        await producer.stop()
    await both_ways(kafka_bootstrap_servers, partition, 2 * len(RECORDS))


async def test_the_marks_of_transactions_are_left_out(
    kafka_bootstrap_servers: str, partition: TopicPartition
) -> None:
    transactional: Any = AIOKafkaProducer(
        bootstrap_servers=kafka_bootstrap_servers, transactional_id="juinie-test"
    )
    await transactional.start()
    try:
        async with transactional.transaction():
            await transactional.send(partition.topic, b"kept", b"key", partition=0)
        await transactional.begin_transaction()
        await transactional.send(partition.topic, b"aborted", b"key", partition=0)
        await transactional.abort_transaction()
    finally:
        await transactional.stop()
    async with producer_of(kafka_bootstrap_servers) as producer:
        await producer.send_and_wait(partition.topic, b"after", b"key", partition=0)
    await both_ways(kafka_bootstrap_servers, partition, 3)
