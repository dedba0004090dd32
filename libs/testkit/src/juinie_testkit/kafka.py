"""Kafka by hand: read a topic from its start, put any bytes on one, make and delete topics."""

import asyncio
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, NewTopic

from juinie_testkit.waits import StillMissing

KNOWN_SECONDS = 30.0
"""At most, until a topic that was created is there."""

type Record = Any
"""aiokafka's ConsumerRecord: topic, partition, offset, key, value, headers, timestamp."""


async def read_topic(
    servers: str, topic: str, until: Callable[[list[Record]], bool], timeout_seconds: float = 30
) -> list[Record]:
    """All records of a topic from its start on, until `until` says of those read so far that they are enough.

    The topic may not be there yet. Records of one partition are in order.

    Raises:
        StillMissing: `until` was not content in time; the message says what was read.
    """
    records: list[Record] = []
    try:
        async with asyncio.timeout(timeout_seconds), _consumer(servers) as consumer:
            assigned = frozenset[TopicPartition]()
            while not until(records):
                assigned = await _assign(consumer, topic, assigned)
                if not assigned:
                    await asyncio.sleep(0.1)
                    continue
                batches: dict[TopicPartition, list[Record]] = await consumer.getmany(timeout_ms=200)  # pyright: ignore[reportUnknownVariableType] - aiokafka types it in part
                records += [record for batch in batches.values() for record in batch]
    except TimeoutError as error:
        raise StillMissing(_what_was_read(topic, records, timeout_seconds)) from error
    return records


async def produce_raw(
    servers: str,
    topic: str,
    key: bytes | None,
    value: bytes | None,
    headers: Sequence[tuple[str, bytes]] = (),
    partition: int | None = None,
) -> None:
    """Put one record on a topic that exists, whatever its bytes; returns when Kafka has it."""
    async with producer_of(servers) as producer:
        await producer.send_and_wait(topic, value, key, partition=partition, headers=list(headers))


async def create_topic(servers: str, topic: str, partitions: int = 1, **configs: str) -> None:
    """Create a topic, and wait until its broker knows it too. Its configuration's names have `_` for `.`: `max_message_bytes`."""
    named = {name.replace("_", "."): value for name, value in configs.items()}
    async with admin_of(servers) as admin:
        await admin.create_topics([NewTopic(topic, partitions, 1, topic_configs=named)])
        try:
            async with asyncio.timeout(KNOWN_SECONDS):
                while topic not in await admin.list_topics():
                    await asyncio.sleep(0.01)
        except TimeoutError as error:
            raise StillMissing(f"The broker does not know {topic} after {KNOWN_SECONDS:g} s.") from error


async def delete_topic(servers: str, topic: str) -> None:
    """Delete a topic."""
    async with admin_of(servers) as admin:
        await admin.delete_topics([topic])


async def delete_topics_of(servers: str, prefix: str) -> None:
    """Delete every topic whose name begins with `prefix`."""
    async with admin_of(servers) as admin:
        names = [name for name in await admin.list_topics() if name.startswith(prefix)]
        if names:
            await admin.delete_topics(names)


@asynccontextmanager
async def admin_of(servers: str) -> AsyncGenerator[Any]:
    """A client for all that is done to topics; aiokafka types it in part."""
    admin = AIOKafkaAdminClient(bootstrap_servers=servers)
    await admin.start()
    try:
        yield admin
    finally:
        await admin.close()


@asynccontextmanager
async def producer_of(servers: str) -> AsyncGenerator[Any]:
    """A producer of any bytes, which waits for every replica."""
    producer = AIOKafkaProducer(bootstrap_servers=servers, acks="all")
    await producer.start()
    try:
        yield producer
    finally:
        await producer.stop()


@asynccontextmanager
async def _consumer(servers: str) -> AsyncGenerator[AIOKafkaConsumer]:
    consumer = AIOKafkaConsumer(
        bootstrap_servers=servers,
        auto_offset_reset="earliest",
        enable_auto_commit=False,
        metadata_max_age_ms=500,
    )
    await consumer.start()
    try:
        yield consumer
    finally:
        await consumer.stop()


async def _assign(
    consumer: AIOKafkaConsumer, topic: str, assigned: frozenset[TopicPartition]
) -> frozenset[TopicPartition]:
    """Read all partitions that the topic has now."""
    if assigned:
        return assigned
    if topic not in await consumer.topics():
        return assigned
    found = frozenset(TopicPartition(topic, number) for number in consumer.partitions_for_topic(topic) or ())
    if found:
        consumer.assign(list(found))
        await consumer.seek_to_beginning(*found)
    return found


def _what_was_read(topic: str, records: list[Record], timeout_seconds: float) -> str:
    last = [
        f"{record.partition}/{record.offset} {dict(record.headers).get('ce_id', b'?').decode()}"
        for record in records[-5:]
    ]
    return f"After {timeout_seconds:g} s topic {topic} had {len(records)} records, not what was waited for; the last: {', '.join(last) or 'none'}."
