"""Fakes of the publisher's neighbours, a telemetry without exporter, and small makers of rows.

The fakes pass the same suites as Postgres and Kafka do: see `contract/test_outbox.py` and `contract/test_topic.py`.
"""

import asyncio
import dataclasses
import time
from collections import Counter, defaultdict
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

import pytest
from msgspec.structs import replace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from prometheus_client import CollectorRegistry

from juinie_publisher.core.relay import BatchFailed, RecordRefused
from juinie_publisher.edges.kafka import BATCH_BYTES
from juinie_publisher.store.outbox import PendingRow, Window, WindowLimits
from juinie_publisher.telemetry import Telemetry
from juinie_shared.contracts.record import RunEventRecord, event_json_head
from juinie_shared.domain.errors import KafkaAway
from juinie_shared.domain.ids import RunId, Seq, TenantId, shard_of

TENANT = TenantId(UUID("0193f2a4-0000-7000-8000-000000000001"))
TIME = "2026-11-23T12:00:00.123456Z"


def make_record(
    run_id: RunId, seq: int, data: str = "null", traceparent: str | None = None
) -> RunEventRecord:
    value = event_json_head(seq, "token") + f'{TIME}","data":{data}}}'.encode()
    return RunEventRecord(run_id, TENANT, Seq(seq), "token", TIME, value, traceparent)


def make_row(
    row_id: int, run_id: RunId, first: int, last: int, data: str = "null", missing: int = 0
) -> PendingRow:
    records = [make_record(run_id, seq, data) for seq in range(first + missing, last + 1)]
    return PendingRow(row_id, shard_of(run_id), run_id, Seq(first), Seq(last), None, 0.0, records)


@dataclass
class FakeOutbox:
    """The outbox in memory."""

    rows: list[PendingRow] = field(default_factory=list)
    deleted: list[int] = field(default_factory=list)
    parked: list[tuple[RunId, int, str]] = field(default_factory=list)
    last_seq: Counter[RunId] = field(default_factory=Counter)
    before_fetch: Callable[[], None] | None = None
    before_delete: Callable[[], None] | None = None

    async def append(self, run_id: RunId, count: int = 1, data: str = "null", missing: int = 0) -> PendingRow:
        first = self.last_seq[run_id] + 1
        self.last_seq[run_id] += count
        row_id = len(self.rows) + len(self.deleted) + 1
        row = make_row(row_id, run_id, first, self.last_seq[run_id], data, missing)
        self.rows.append(row)
        return row

    async def fetch(
        self, shards: Iterable[int], limits: WindowLimits, without: Iterable[RunId] = ()
    ) -> Window:
        left_out = set(without)
        wanted, per_shard = set(shards), Counter[int]()
        due = list[PendingRow]()
        for row in self.rows:
            if (
                row.shard in wanted
                and row.run_id not in left_out
                and per_shard[row.shard] < limits.rows_a_shard
            ):
                per_shard[row.shard] += 1
                due.append(row)
        window = self._window(due, limits)
        crowded = any(
            count >= limits.rows_a_shard for count in Counter(row.shard for row in window.rows).values()
        )
        return dataclasses.replace(window, full=window.full or crowded)

    async def fetch_oldest(self, limits: WindowLimits) -> Window:
        return self._window(self.rows, limits)

    def _window(self, due: Sequence[PendingRow], limits: WindowLimits) -> Window:
        if self.before_fetch:
            self.before_fetch()
        taken = list[PendingRow]()
        size = count = 0
        for row in due:
            size += sum(len(record.value) for record in row.records)
            count += row.last_seq - row.first_seq + 1
            if taken and (size > limits.bytes or count > limits.records or len(taken) == limits.rows):
                break
            taken.append(row)
        return Window(taken, len(due) > len(taken), time.monotonic())

    async def delete(self, ids: Sequence[int]) -> None:
        if self.before_delete:
            self.before_delete()
        gone = {row.id for row in self.rows} & set(ids)
        self.rows = [row for row in self.rows if row.id not in gone]
        self.deleted += sorted(gone)

    async def park(self, row_id: int, seq: Seq, reason: str) -> bool:
        """As the store of dead letters does it, to the same rows."""
        found = [row for row in self.rows if row.id == row_id and row.first_seq <= seq <= row.last_seq]
        if not found:
            return False
        (row,) = found
        self.parked.append((row.run_id, seq, reason))
        place, left = self.rows.index(row), [record for record in row.records if record.seq > seq]
        self.rows[place : place + 1] = [replace(row, first_seq=Seq(seq + 1), records=left)] if left else []
        self.deleted += [] if left else [row.id]
        return True


@dataclass
class FakeTopic:
    """The topic in memory. `before_send` is awaited with each batch before it arrives, `after_send` before its ack.

    A record with a value of more than `max_bytes` can never be sent.
    """

    partitions: int = 4
    batch_bytes: int = BATCH_BYTES
    max_bytes: int = 10_000_000
    away: bool = False
    log: defaultdict[int, list[RunEventRecord]] = field(default_factory=lambda: defaultdict(list))
    before_send: Callable[[int, Sequence[RunEventRecord]], Awaitable[None]] | None = None
    after_send: Callable[[int, Sequence[RunEventRecord]], Awaitable[None]] | None = None
    in_flight: Counter[int] = field(default_factory=Counter)

    async def connect(self) -> None:
        if self.away:
            raise KafkaAway

    def partition_of(self, key: bytes) -> int:
        return sum(key) % self.partitions

    async def send(self, partition: int, records: Sequence[RunEventRecord], start: int) -> int:
        assert not self.in_flight[partition], "one unacknowledged batch a partition"
        if self.away:
            raise KafkaAway
        if len(records[start].value) > self.max_bytes:
            raise RecordRefused("message_too_large")
        end, size = start, 0
        while end < len(records):
            if len(records[end].value) > self.max_bytes:
                break
            size += len(records[end].value)
            if end > start and size > self.batch_bytes:
                break
            end += 1
        batch = records[start:end]
        self.in_flight[partition] += 1
        try:
            if self.before_send:
                await self.before_send(partition, batch)
            self.log[partition] += batch
            if self.after_send:
                await self.after_send(partition, batch)
        except KafkaAway as error:
            raise BatchFailed(end) from error
        finally:
            self.in_flight[partition] -= 1
        return end

    @property
    def records(self) -> list[RunEventRecord]:
        return [record for partition in self.log.values() for record in partition]

    def seqs(self, run_id: RunId) -> list[int]:
        return [record.seq for record in self.records if record.run_id == run_id]


@dataclass
class Told:
    """What the publisher told of itself."""

    telemetry: Telemetry
    registry: CollectorRegistry
    spans: InMemorySpanExporter

    def count(self, name: str, **labels: str) -> float:
        return self.registry.get_sample_value(name, labels) or 0.0


@pytest.fixture
def told() -> Told:
    spans, registry, provider = InMemorySpanExporter(), CollectorRegistry(), TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(spans))
    return Told(Telemetry(provider.get_tracer("test"), registry), registry, spans)


@pytest.fixture
def stopping() -> asyncio.Event:
    return asyncio.Event()


@pytest.fixture
def outbox() -> FakeOutbox:
    return FakeOutbox()


@pytest.fixture
def topic() -> FakeTopic:
    return FakeTopic()


@pytest.fixture
def fake_outbox() -> type[FakeOutbox]:
    return FakeOutbox


@pytest.fixture
def fake_topic() -> type[FakeTopic]:
    return FakeTopic


@pytest.fixture
def record_maker() -> Callable[..., RunEventRecord]:
    return make_record


@pytest.fixture
def unreadable_limits(monkeypatch: pytest.MonkeyPatch) -> None:
    """The publisher may not read what a topic takes."""

    async def not_allowed(_admin: Any, _topic: str) -> None:
        return None

    monkeypatch.setattr("juinie_publisher.edges.topic_admin.max_message_bytes", not_allowed)


@pytest.fixture
def row_maker() -> Callable[..., PendingRow]:
    return make_row


@pytest.fixture
def first_times() -> Callable[[Iterable[RunEventRecord]], dict[RunId, list[int]]]:
    """The seqs of each run in the order in which they came for the first time."""

    def of(records: Iterable[RunEventRecord]) -> dict[RunId, list[int]]:
        seen: defaultdict[RunId, dict[int, None]] = defaultdict(dict)
        for record in records:
            seen[record.run_id].setdefault(record.seq)
        return {run_id: list(seqs) for run_id, seqs in seen.items()}

    return of
