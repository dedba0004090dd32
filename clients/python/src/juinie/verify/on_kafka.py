"""The run as its records on Kafka tell it. Needs the extra `juinie[kafka]`."""

import asyncio
import time
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.errors import KafkaTimeoutError

from juinie.verify.comparisons import (
    Record,
    compared,
    faults_of_records,
    judged,
    missing_on_kafka,
    oldest_of,
    out_of_order,
    outlived,
    seqs_of,
)
from juinie.verify.kafka_retention import kept_since_ms, possible_partitions, retention_of
from juinie.verify.over_http import Log
from juinie.verify.report import Check, Report

_CLOCKS_MS = 60_000
"""The broker's clock may be behind that of the database by so much."""
_LOOK_EVERY_SECONDS = 0.5
_ONE_READ_MS = 500
_SILENCE_SECONDS = 30.0
"""For so long a partition may bring nothing of what it has."""
_OLD = "older than what Kafka keeps"
_UNKNOWN = "how long Kafka keeps it cannot be read"
_PERHAPS_OLD = "older than what Kafka has left"


@dataclass(frozen=True, slots=True)
class Found:
    """What Kafka has of a run.

    `records` in the order of their partitions; `dead`: seqs that became dead letters; `kept_since_ms`: what is older may
    have been removed, in milliseconds since 1970, None where nothing was; `retention_known`: that is by the topic's
    configuration, and not by what is left alone.
    """

    records: Sequence[Record]
    dead: frozenset[int] = frozenset()
    kept_since_ms: int | None = None
    retention_known: bool = True


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
    mine = compared(found.records, log.first_seq, log.until_seq)
    missing = missing_on_kafka(log.events, mine)
    dead = dict.fromkeys(found.dead, "a dead letter")
    old = dict.fromkeys(
        outlived(log.events, found.kept_since_ms), _OLD if found.retention_known else _PERHAPS_OLD
    )
    gone = {seq: old[seq] for seq in oldest_of(log.events, missing) if seq in old}
    unsure = "" if found.retention_known else f" ({_UNKNOWN})"
    lost = judged(((seq, f"seq {seq} is missing{unsure}") for seq in missing), gone | dead)
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
    records, since_ms, retention_known = await _records(servers, topic, log)
    dead, _, _ = await _records(servers, dead_topic or f"{topic}.dead", log)
    return Found(records, frozenset(seqs_of(dead)), since_ms, retention_known)


async def _records(servers: str, topic: str, log: Log) -> tuple[list[Record], int | None, bool]:
    """The run's records, in the order of their partitions; since when all of it is kept (None: always); and whether retention is known.

    Raises:
        KafkaError: no answer, or one that does not come to an end.
    """
    async with _admin(servers) as admin:
        partitions = await _partitions(admin, topic)
        retention = await retention_of(admin, topic) if partitions else None
    if not partitions:
        return [], None, True
    consumer: Any = AIOKafkaConsumer(
        bootstrap_servers=servers, enable_auto_commit=False, auto_offset_reset="earliest"
    )
    await consumer.start()
    try:
        records = await read_records(consumer, partitions, log)
        mine = possible_partitions(partitions, log.run["run_id"].encode())
        left = await _oldest_left(consumer, mine)
    finally:
        await consumer.stop()
    since_ms = kept_since_ms(left, retention, int(time.time() * 1000))
    return records, since_ms, retention is not None or not left


async def _oldest_left(consumer: Any, partitions: list[TopicPartition]) -> list[int | None]:
    """Of those that have lost records, when the oldest came that is left, in milliseconds since 1970; None where none is."""
    begins: dict[TopicPartition, int] = await consumer.beginning_offsets(partitions)
    cut = {partition: 0 for partition, offset in begins.items() if offset > 0}
    if not cut:
        return []
    oldest: dict[TopicPartition, Any] = await consumer.offsets_for_times(cut)
    return [left.timestamp if (left := oldest.get(partition)) else None for partition in cut]


@asynccontextmanager
async def _admin(servers: str) -> AsyncGenerator[Any]:
    admin: Any = AIOKafkaAdminClient(bootstrap_servers=servers)
    await admin.start()
    try:
        yield admin
    finally:
        await admin.close()


async def _partitions(admin: Any, topic: str) -> list[TopicPartition]:
    """All that the topic has now; none when there is no topic."""
    return [
        TopicPartition(topic, partition["partition"])
        for told in await admin.describe_topics([topic])
        for partition in told["partitions"]
    ]


async def read_records(consumer: Any, partitions: list[TopicPartition], log: Log) -> list[Record]:
    """What the partitions have of the run now.

    Raises:
        KafkaTimeoutError: some of it did not come, for as long as there is patience: no broker may lead its partition.
    """
    key, records, clock = log.run["run_id"].encode(), list[Record](), asyncio.get_running_loop().time
    try:
        async with asyncio.timeout(_SILENCE_SECONDS) as patience:
            ends: dict[TopicPartition, int] = await consumer.end_offsets(partitions)
            await _seek(consumer, partitions, log)
            at = await _positions(consumer, partitions)
            while waiting := [partition for partition in partitions if at[partition] < ends[partition]]:
                batches = await consumer.getmany(*waiting, timeout_ms=_ONE_READ_MS)
                for batch in batches.values():
                    records += [_record(found) for found in batch if found.key == key]
                before, at = at, await _positions(consumer, partitions)
                if at != before:
                    patience.reschedule(clock() + _SILENCE_SECONDS)
    except TimeoutError as error:
        raise KafkaTimeoutError from error
    return records


async def _positions(consumer: Any, partitions: list[TopicPartition]) -> dict[TopicPartition, int]:
    return {partition: await consumer.position(partition) for partition in partitions}


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
