"""Outbox → Kafka: at least once, and for each run in seq order.

It holds without locks or fencing, whatever crashes and however many publishers run, because

1. a fetch is a prefix of what is left of every run;
2. a partition has one unacknowledged batch at a time, and the first that fails ends its round;
3. a row is deleted only when Kafka has acknowledged every record of its range;
4. so nothing newer of a run is ever sent before the older was acknowledged.

A crash, a lost answer or a twin at work can only send again what was sent before. Kafka being away is nobody's
fault: the rows stay and are tried for ever.
"""

import asyncio
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Protocol

from juinie_publisher.core.backoff import ShardBackoff, delay_seconds
from juinie_publisher.core.doorbell import Doorbell
from juinie_publisher.core.pause import pause
from juinie_publisher.store.outbox import PendingRow, Window, WindowLimits
from juinie_publisher.telemetry import Telemetry
from juinie_shared.contracts.record import RunEventRecord
from juinie_shared.domain.errors import KafkaAway, Transient
from juinie_shared.domain.ids import SHARDS

POLL_SECONDS = 0.1
"""How late a row is at most when no notification comes."""


class BatchFailed(KafkaAway):
    """A batch was refused, or its acknowledgement did not come. `end`: where the next batch would have begun."""

    def __init__(self, end: int) -> None:
        super().__init__()
        self.end = end


type Outcome = tuple[Sequence[PendingRow], Sequence[PendingRow]]
"""The rows that Kafka has whole, and those of the batches that failed. The rest was not tried."""


class Outbox(Protocol):
    async def fetch(self, shards: Iterable[int], limits: WindowLimits) -> Window:
        """The oldest rows of these shards: per run a prefix of what is left."""
        ...

    async def delete(self, ids: Sequence[int]) -> None:
        """Forget these rows."""
        ...


class Topic(Protocol):
    async def connect(self) -> None:
        """Be ready to send. Raises KafkaAway."""
        ...

    def partition_of(self, key: bytes) -> int:
        """Where the records of this key lie."""
        ...

    async def send(self, partition: int, records: Sequence[RunEventRecord], start: int) -> int:
        """Send one batch, of the records from `start` on that fit, and await its ack. Gives where the next begins.

        Raises BatchFailed: it is unknown whether the batch arrived. KafkaAway: there is nowhere to send to.
        """
        ...


class Relay:
    """Moves rows from the outbox to the topic until it is told to stop."""

    def __init__(
        self, outbox: Outbox, topic: Topic, doorbell: Doorbell, telemetry: Telemetry,
        limits: WindowLimits | None = None, backoff: ShardBackoff | None = None,
        shards: Callable[[], Iterable[int]] = lambda: range(SHARDS),
    ) -> None:  # fmt: skip
        """`shards`: those that are this publisher's at this moment."""
        self._outbox = outbox
        self._topic = topic
        self._doorbell = doorbell
        self._telemetry = telemetry
        self._limits = limits or WindowLimits()
        self._backoff = backoff or ShardBackoff()
        self._shards = shards

    async def run(self, stopping: asyncio.Event) -> None:
        """Relay until `stopping` is set. The round in flight is finished first."""
        failures = 0
        while not stopping.is_set():
            try:
                more = await self.round()
            except Transient as error:
                self._telemetry.failed(error)
                failures += 1
                await pause(stopping, delay_seconds(failures))
            else:
                failures = 0
                if not more:
                    await self._doorbell.wait(POLL_SECONDS)

    async def round(self) -> bool:
        """Fetch, send, await all acks, delete. Gives whether more was waiting."""
        await self._connect()
        shards = self._backoff.due(self._shards())
        window = await self._outbox.fetch(shards, self._limits) if shards else None
        if window is None or not window.rows:
            return False
        self._tell_missing(window.rows)
        with self._telemetry.round((row.traceparent for row in window.rows), _record_count(window.rows)):
            acked, failed = await self._publish(window.rows)
            self._settle(window, acked, failed)
            await self._outbox.delete([row.id for row in acked])
        return window.full

    async def _connect(self) -> None:
        try:
            await self._topic.connect()
        except KafkaAway as error:
            self._telemetry.kafka_is(away=True, reason=str(error.__cause__ or error))
            raise
        self._telemetry.kafka_is(away=False)

    async def _publish(self, rows: Sequence[PendingRow]) -> Outcome:
        """Send to all partitions at once."""
        partitions = group_by_partition(rows, self._topic.partition_of)
        rounds = await asyncio.gather(*(self._publish_to(*group) for group in partitions.items()))
        return [row for acked, _ in rounds for row in acked], [row for _, failed in rounds for row in failed]

    async def _publish_to(self, partition: int, rows: Sequence[PendingRow]) -> Outcome:
        """One batch after the other, each once the one before is acknowledged. Ends with the first that fails."""
        records = [record for row in rows for record in row.records]
        acked = 0
        try:
            while acked < len(records):
                acked = await self._topic.send(partition, records, acked)
        except KafkaAway as error:
            self._telemetry.failed(error)
            end = error.end if isinstance(error, BatchFailed) else len(records)
            whole = rows_within(rows, acked)
            return whole, rows_begun(rows, end)[len(whole) :]
        return rows, []

    def _settle(self, window: Window, acked: Sequence[PendingRow], failed: Sequence[PendingRow]) -> None:
        """Let the shards whose batch failed wait before they are tried again. Those behind them go on without them."""
        failed_shards = {row.shard for row in failed}
        self._backoff.settle({row.shard for row in acked} | failed_shards, failed_shards)
        self._telemetry.published([row.age_seconds for row in acked], window.fetched_at, _record_count(acked))

    def _tell_missing(self, rows: Sequence[PendingRow]) -> None:
        """Events that were purged before they were published can't be sent. Their row must not stay for ever."""
        for row in rows:
            if row.events_missing:
                self._telemetry.events_missing(row.run_id, row.first_seq, row.last_seq, row.events_missing)


def group_by_partition(
    rows: Iterable[PendingRow], partition_of: Callable[[bytes], int]
) -> Mapping[int, Sequence[PendingRow]]:
    """The rows of each partition, in the order they came."""
    groups: defaultdict[int, list[PendingRow]] = defaultdict(list)
    for row in rows:
        groups[partition_of(str(row.run_id).encode())].append(row)
    return groups


def rows_within(rows: Sequence[PendingRow], acked: int) -> Sequence[PendingRow]:
    """The first rows, as many as are whole within the first `acked` of their records."""
    records = 0
    for place, row in enumerate(rows):
        records += len(row.records)
        if records > acked:
            return rows[:place]
    return rows


def rows_begun(rows: Sequence[PendingRow], sent: int) -> Sequence[PendingRow]:
    """The first rows, as many as have a record among the first `sent` of their records."""
    records = 0
    for place, row in enumerate(rows):
        if records >= sent:
            return rows[:place]
        records += len(row.records)
    return rows


def _record_count(rows: Iterable[PendingRow]) -> int:
    return sum(len(row.records) for row in rows)
