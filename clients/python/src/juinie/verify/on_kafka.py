"""The run as its records on Kafka tell it. Needs the extra `juinie[kafka]`."""

import asyncio
import time
from datetime import datetime
from typing import Any

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient

from juinie.verify.comparisons import Record, faults_of_order, faults_of_records, missing_on_kafka
from juinie.verify.over_http import Log
from juinie.verify.report import Report

_CLOCKS_MS = 60_000
"""The broker's clock may be behind that of the database by so much."""
_LOOK_EVERY_SECONDS = 0.5


async def check_kafka(servers: str, topic: str, log: Log, report: Report, wait_seconds: float) -> None:
    """Every event at least once, first occurrences in order, values byte for byte, headers right.

    What has been committed just now may be on its way still: it is waited for, `wait_seconds` at most.
    """
    deadline = time.monotonic() + wait_seconds
    records = await _records(servers, topic, log)
    while (missing := missing_on_kafka(log.events, records)) and time.monotonic() < deadline:
        await asyncio.sleep(_LOOK_EVERY_SECONDS)
        records = await _records(servers, topic, log)
    last = log.run["last_seq"]
    mine = [record for record in records if not _after(record, last)]
    copies = len(mine) - len(log.events) + len(missing)
    lost = (f"seq {seq} is missing" for seq in missing)
    report.add("kafka", f"{len(log.events)} events, {max(0, copies)} records more than once", lost)
    report.add("kafka", "first occurrences in order", faults_of_order(mine))
    report.add("kafka", "values byte for byte, headers right", faults_of_records(log.events, mine))


async def _records(servers: str, topic: str, log: Log) -> list[Record]:
    """The run's records, in the order of their partition."""
    partitions = await _partitions(servers, topic)
    if not partitions:
        return []
    consumer: Any = AIOKafkaConsumer(
        bootstrap_servers=servers, enable_auto_commit=False, auto_offset_reset="earliest"
    )
    await consumer.start()
    try:
        return await _read(consumer, partitions, log)
    finally:
        await consumer.stop()


async def _partitions(servers: str, topic: str) -> list[TopicPartition]:
    """All that the topic has now; none when there is no topic."""
    admin: Any = AIOKafkaAdminClient(bootstrap_servers=servers)
    await admin.start()
    try:
        described = await admin.describe_topics([topic])
    finally:
        await admin.close()
    return [
        TopicPartition(topic, partition["partition"])
        for told in described
        for partition in told["partitions"]
    ]


async def _read(consumer: Any, partitions: list[TopicPartition], log: Log) -> list[Record]:
    ends: dict[TopicPartition, int] = await consumer.end_offsets(partitions)
    await _seek(consumer, partitions, log)
    key, records = log.run["run_id"].encode(), list[Record]()
    waiting = {partition for partition in partitions if await consumer.position(partition) < ends[partition]}
    while waiting:
        for partition, batch in (await consumer.getmany(*waiting, timeout_ms=500)).items():
            records += [
                Record(found.key, found.value, dict(found.headers)) for found in batch if found.key == key
            ]
            if await consumer.position(partition) >= ends[partition]:
                waiting.discard(partition)
    return records


async def _seek(consumer: Any, partitions: list[TopicPartition], log: Log) -> None:
    """Nothing of the run can be older than the run."""
    consumer.assign(partitions)
    created = datetime.fromisoformat(log.run["created_at"])
    since = int(created.timestamp() * 1000) - _CLOCKS_MS
    found: dict[TopicPartition, Any] = await consumer.offsets_for_times(dict.fromkeys(partitions, since))
    for partition in partitions:
        offset = found.get(partition)
        if offset is None:
            await consumer.seek_to_end(partition)
        else:
            consumer.seek(partition, offset.offset)


def _after(record: Record, last_seq: int) -> bool:
    """It came after the log was read."""
    text = record.headers.get("ce_id", b"").rpartition(b":")[2]
    return text.isdigit() and int(text) > last_seq
