"""Kafka against the log: what is a fault of it, and what the protocol says can be."""

import asyncio
from typing import Any

import pytest
from aiokafka import TopicPartition
from aiokafka.errors import KafkaTimeoutError
from aiokafka.structs import OffsetAndTimestamp

from juinie.events import RunEvent
from juinie.verify import on_kafka
from juinie.verify.comparisons import Record
from juinie.verify.on_kafka import Found, checks_of
from juinie.verify.over_http import Log
from juinie.verify.report import Check

RUN_ID = "0193a1f2-7c3e-7d4b-9a55-0c6a2f1e8b70"
NOON_MS = 1795435200000
"""When the first event was: 2026-11-23T12:00:00Z. Each comes a second after the one before."""


def event(seq: int) -> RunEvent:
    time = f"2026-11-23T12:00:{seq - 1:02}.000000Z"
    return RunEvent.read(f'{{"seq":{seq},"type":"token","time":"{time}","data":{{}}}}'.encode())


EVENTS = [event(seq) for seq in range(1, 6)]
LOG = Log({"run_id": RUN_ID, "status": "running", "last_seq": 5}, EVENTS, 1)


def record(seq: int, partition: int = 0, second: int = 0) -> Record:
    """Appended so many seconds after the first event."""
    of = event(seq)
    headers = {
        "ce_specversion": b"1.0", "ce_id": f"{RUN_ID}:{seq}".encode(), "ce_type": b"token",
        "ce_source": b"/juinie/tenants/5d2c6a1e-0000-4000-8000-000000000000", "ce_subject": RUN_ID.encode(),
        "ce_time": of.time.encode(), "content-type": b"application/json",
    }  # fmt: skip
    return Record(RUN_ID.encode(), of.raw, headers, partition, NOON_MS + 1000 * second)


def records(*seqs: int, partition: int = 0, second: int = 0) -> list[Record]:
    return [record(seq, partition, second + place) for place, seq in enumerate(seqs)]


def told(found: Found) -> tuple[list[str], list[str]]:
    """All faults and all notes."""
    checks: list[Check] = checks_of(LOG, found)
    return (
        [fault for check in checks for fault in check.faults],
        [note for check in checks for note in check.notes],
    )


def test_run_that_is_whole_has_neither_fault_nor_note() -> None:
    assert told(Found(records(1, 2, 3, 2, 3, 4, 5))) == ([], [])


def test_disorder_and_gaps_are_faults() -> None:
    assert told(Found(records(1, 3, 2, 4, 5))) == (["seq 2 came first after 3"], [])
    assert told(Found(records(1, 2, 4, 5))) == (["seq 3 is missing"], [])


def test_dead_letter_may_be_missing_or_late_and_nothing_else_may() -> None:
    assert told(Found(records(1, 2, 4, 5), frozenset({3}))) == ([], ["seq 3 is missing: a dead letter"])
    assert told(Found(records(1, 2, 4, 5, 3), frozenset({3}))) == (
        [],
        ["seq 3 came first after 5: a dead letter"],
    )
    assert told(Found(records(1, 4, 5, 3, 2), frozenset({3})))[0] == ["seq 2 came first after 5"]


def test_grown_topic_is_in_order_in_each_of_its_partitions() -> None:
    newer, older = records(4, 5, partition=0, second=9), records(1, 2, 3, partition=1)

    assert told(Found([*newer, *older])) == ([], [])


def test_what_was_sent_again_into_a_grown_topic_came_first_where_it_was() -> None:
    older, newer = records(1, 2, 3, partition=0), records(4, 5, 1, 2, 3, 4, 5, partition=1, second=9)

    assert told(Found([*older, *newer])) == ([], [])


def test_disorder_in_the_old_partition_of_a_grown_topic_is_found() -> None:
    older, newer = records(1, 3, 2, partition=0), records(4, 5, 1, 2, 3, 4, 5, partition=1, second=9)

    assert told(Found([*older, *newer])) == (["seq 2 came first after 3"], [])


def test_what_is_past_kafkas_retention_is_a_note() -> None:
    since = NOON_MS + 2500
    note = ": older than what Kafka keeps"

    assert told(Found(records(4, 5), kept_since_ms=since)) == (
        [],
        [f"seq {seq} is missing{note}" for seq in (1, 2, 3)],
    )
    assert told(Found(records(4, 5, 1, 2, 3), kept_since_ms=since)) == (
        [],
        [f"seq {seq} came first after 5{note}" for seq in (1, 2, 3)],
    )


def test_retention_excuses_nothing_that_is_younger_and_no_gap() -> None:
    since = NOON_MS + 2500

    assert told(Found(records(5), kept_since_ms=since))[0] == ["seq 4 is missing"]
    assert told(Found(records(1, 3, 4, 5), kept_since_ms=since)) == (["seq 2 is missing"], [])
    assert told(Found(records(1, 2, 3, 5, 4), kept_since_ms=since)) == (["seq 4 came first after 5"], [])
    assert len(told(Found([], kept_since_ms=None))[0]) == 5


def test_what_is_kept_no_more_is_told_to_be_unsure_where_retention_cannot_be_read() -> None:
    unsure = "(how long Kafka keeps it cannot be read)"
    since = NOON_MS + 500

    assert told(Found(records(1, 2, 3, 4), retention_known=False)) == ([f"seq 5 is missing {unsure}"], [])
    assert told(Found(records(2, 3, 4, 5), kept_since_ms=since, retention_known=False)) == (
        [],
        [f"seq 1 is missing {unsure}: older than what Kafka has left"],
    )


def test_record_behind_the_end_is_a_fault_and_behind_what_was_read_of_an_open_run_none() -> None:
    found = Found(records(1, 2, 3, 4, 5, 6))
    finished = Log({**LOG.run, "status": "success"}, EVENTS, 1)

    assert told(found) == ([], [])
    assert [fault for check in checks_of(finished, found) for fault in check.faults] == [
        f"a record with ce_id {RUN_ID}:6 is no event of the run"
    ]


@pytest.mark.parametrize("first_seq", [3, 6])
def test_records_of_events_that_the_log_keeps_no_more_are_no_fault(first_seq: int) -> None:
    kept = Log({**LOG.run, "status": "success"}, EVENTS[first_seq - 1 :], first_seq)

    assert not [fault for check in checks_of(kept, Found(records(1, 2, 3, 4, 5))) for fault in check.faults]


class Consumer:
    """Of one partition of five records, none of which it brings. `places` are where it is after each try."""

    def __init__(self, *places: int) -> None:
        self._places = list(places)

    def assign(self, partitions: object) -> None: ...

    def seek(self, partition: object, offset: int) -> None: ...

    async def end_offsets(self, partitions: list[TopicPartition]) -> dict[TopicPartition, int]:
        return dict.fromkeys(partitions, 5)

    async def offsets_for_times(self, times: dict[TopicPartition, int]) -> dict[TopicPartition, Any]:
        return {partition: OffsetAndTimestamp(0, 0) for partition in times}

    async def position(self, _: TopicPartition) -> int:
        return self._places.pop(0) if len(self._places) > 1 else self._places[0]

    async def getmany(self, *_: TopicPartition, timeout_ms: int) -> dict[TopicPartition, list[Any]]:
        await asyncio.sleep(timeout_ms / 1e6)
        return {}


CREATED = Log({**LOG.run, "created_at": "2026-11-23T12:00:00.000000Z"}, EVENTS, 1)


async def test_partition_that_brings_nothing_is_not_waited_for_for_ever(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(on_kafka, "_SILENCE_SECONDS", 0.1)
    async with asyncio.timeout(20):
        with pytest.raises(KafkaTimeoutError):
            await on_kafka.read_records(Consumer(0, 1, 1), [TopicPartition("runs", 0)], CREATED)


async def test_records_that_are_removed_while_they_are_read_are_not_waited_for() -> None:
    async with asyncio.timeout(20):
        assert await on_kafka.read_records(Consumer(0, 2, 5), [TopicPartition("runs", 0)], CREATED) == []
