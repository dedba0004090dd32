"""Kafka by hand, and a broker that a test may stop."""

import asyncio

import pytest

from juinie_testkit.backing.ready import kafka_answers
from juinie_testkit.kafka import create_topic, produce_raw, read_topic
from juinie_testkit.stoppable import StoppableServer
from juinie_testkit.waits import StillMissing


async def test_any_bytes_are_put_on_a_topic_and_read_back(kafka_bootstrap_servers: str, kafka_topic: str):
    await create_topic(kafka_bootstrap_servers, kafka_topic, partitions=2)
    await produce_raw(kafka_bootstrap_servers, kafka_topic, b"\xff", None, [("h", b"\x00")], partition=1)
    (record,) = await read_topic(kafka_bootstrap_servers, kafka_topic, lambda records: len(records) == 1)
    assert (record.key, record.value, record.headers, record.partition) == (
        b"\xff",
        None,
        (("h", b"\x00"),),
        1,
    )


async def test_reader_waits_for_a_topic_that_is_not_there_yet(kafka_bootstrap_servers: str, kafka_topic: str):
    reading = asyncio.create_task(
        read_topic(kafka_bootstrap_servers, kafka_topic, lambda records: len(records) == 1)
    )
    await asyncio.wait({reading}, timeout=0.1)
    await create_topic(kafka_bootstrap_servers, kafka_topic)
    await produce_raw(kafka_bootstrap_servers, kafka_topic, b"k", b"v")
    assert [record.value for record in await reading] == [b"v"]


async def test_records_that_do_not_come_are_told_with_those_that_did(
    kafka_bootstrap_servers: str, kafka_topic: str
):
    await create_topic(kafka_bootstrap_servers, kafka_topic)
    await produce_raw(kafka_bootstrap_servers, kafka_topic, b"k", b"v", [("ce_id", b"run:7")])
    with pytest.raises(StillMissing, match=r"had 1 records, not what was waited for; the last: 0/0 run:7\."):
        await read_topic(
            kafka_bootstrap_servers, kafka_topic, lambda records: len(records) == 2, timeout_seconds=8
        )


@pytest.mark.timeout(300)
async def test_stopped_broker_refuses_and_has_everything_when_it_is_back(
    stoppable_kafka: StoppableServer, kafka_topic: str
):
    servers = stoppable_kafka.servers
    await create_topic(servers, kafka_topic)
    await produce_raw(servers, kafka_topic, b"k", b"before")
    await asyncio.to_thread(stoppable_kafka.kill)
    assert not await kafka_answers(servers)
    await asyncio.to_thread(stoppable_kafka.start)
    await produce_raw(servers, kafka_topic, b"k", b"after")
    records = await read_topic(servers, kafka_topic, lambda records: len(records) == 2)
    assert [record.value for record in records] == [b"before", b"after"]
