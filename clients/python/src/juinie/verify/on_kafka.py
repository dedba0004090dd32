"""The run as its records on Kafka tell it. Needs the extra `juinie[kafka]`."""

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient

from juinie.verify.comparisons import (
    Record,
    faults_of_records,
    judged,
    missing_on_kafka,
    oldest_of,
    out_of_order,
    outlived,
    seqs_of,
)
from juinie.verify.over_http import Log
from juinie.verify.report import Check, Report

_CLOCKS_MS = 60_000
"""The broker's clock may be behind that of the database by so much."""
_LOOK_EVERY_SECONDS = 0.5


@dataclass(frozen=True, slots=True)
class Found:
    """What Kafka has of a run.

    `records` in the order of their partitions; `dead`: seqs that became dead letters; `kept_since_ms`: what is older may
    have been removed, in milliseconds since 1970, None where nothing was.
    """

    records: Sequence[Record]
    dead: frozenset[int] = frozenset()
    kept_since_ms: int | None = None


async def check_kafka(
    servers: str, topic: str, log: Log, report: Report, wait_seconds: float, dead_topic: str | None = None
) -> None:
    """Every event at least once, first occurrences in order, values byte for byte, headers right.

    What has been committed just now may be on its way still: it is waited for, `wait_seconds` at most. `dead_topic` is
    where dead letters are told, `topic`.dead when absent.
    """
    deadline = time.monotonic() + wait_seconds
    checks = checks_of(log, await _look(servers, topic, dead_topic, log))
    while checks[0].faults and time.monotonic() < deadline:
        await asyncio.sleep(_LOOK_EVERY_SECONDS)
        checks = checks_of(log, await _look(servers, topic, dead_topic, log))
    report.checks += checks


def checks_of(log: Log, found: Found) -> list[Check]:
    """The records against the log; first whether there is one of each event.

    A dead letter may be missing, or come late. So may what is older than what Kafka keeps: it is gone, or was sent again.
    """
    mine = [record for record in found.records if not _after(record, log.run["last_seq"])]
    missing = missing_on_kafka(log.events, mine)
    dead = dict.fromkeys(found.dead, "a dead letter")
    old = dict.fromkeys(outlived(log.events, found.kept_since_ms), "older than what Kafka keeps")
    gone = {seq: old[seq] for seq in oldest_of(log.events, missing) if seq in old}
    lost = judged(((seq, f"seq {seq} is missing") for seq in missing), gone | dead)
    late = judged(
        ((seq, f"seq {seq} came first after {before}") for seq, before in out_of_order(mine)), old | dead
    )
    copies = max(0, len(mine) - len(log.events) + len(missing))
    return [
        Check("kafka", f"{len(log.events)} events, {copies} records more than once", *lost),
        Check("kafka", "first occurrences in order", *late),
        Check("kafka", "values byte for byte, headers right", tuple(faults_of_records(log.events, mine))),
    ]


async def _look(servers: str, topic: str, dead_topic: str | None, log: Log) -> Found:
    records, kept_since_ms = await _records(servers, topic, log)
    dead, _ = await _records(servers, dead_topic or f"{topic}.dead", log)
    return Found(records, frozenset(seqs_of(dead)), kept_since_ms)


async def _records(servers: str, topic: str, log: Log) -> tuple[list[Record], int | None]:
    """The run's records, in the order of their partitions, and since when the topic keeps everything (None: always)."""
    partitions = await _partitions(servers, topic)
    if not partitions:
        return [], None
    consumer: Any = AIOKafkaConsumer(
        bootstrap_servers=servers, enable_auto_commit=False, auto_offset_reset="earliest"
    )
    await consumer.start()
    try:
        return await _read(consumer, partitions, log), await _kept_since_ms(consumer, partitions)
    finally:
        await consumer.stop()


async def _kept_since_ms(consumer: Any, partitions: list[TopicPartition]) -> int | None:
    """When the oldest record came that is left where others were removed; of several such partitions the latest."""
    begins: dict[TopicPartition, int] = await consumer.beginning_offsets(partitions)
    cut = {partition: 0 for partition, offset in begins.items() if offset > 0}
    if not cut:
        return None
    oldest: dict[TopicPartition, Any] = await consumer.offsets_for_times(cut)
    now = int(time.time() * 1000)
    return max(left.timestamp if (left := oldest.get(partition)) else now for partition in cut)


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
            records += [_record(found) for found in batch if found.key == key]
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


def _record(found: Any) -> Record:
    return Record(found.key, found.value, dict(found.headers), found.partition, found.timestamp)


def _after(record: Record, last_seq: int) -> bool:
    """It came after the log was read."""
    text = record.headers.get("ce_id", b"").rpartition(b":")[2]
    return text.isdigit() and int(text) > last_seq
