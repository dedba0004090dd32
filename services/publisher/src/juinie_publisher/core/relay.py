"""Outbox → Kafka: at least once, and for each run in seq order.

It holds without locks or fencing, whatever crashes and however many publishers run, because

1. a fetch is a prefix of what is left of every run, and leaves out the runs that are on their way;
2. a partition has one unacknowledged batch at a time, and the first that fails ends its round;
3. a row is deleted only when Kafka has acknowledged every record of its range;
4. so nothing newer of a run is ever sent before the older was acknowledged.

A crash, a lost answer or a twin at work can only send again what was sent before. Kafka being away is nobody's
fault: the rows stay and are tried for ever. A record that can never be sent is parked, and what is behind it goes on.
"""

import asyncio
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import Protocol

from juinie_publisher.core.backoff import RunBackoff, delay_seconds
from juinie_publisher.core.doorbell import Doorbell
from juinie_publisher.core.lanes import Lanes, Outcome
from juinie_publisher.core.pause import pause
from juinie_publisher.core.rows import group_by_partition, record_count, rows_begun, rows_within
from juinie_publisher.core.turns import Turns
from juinie_publisher.store.outbox import PendingRow, Window, WindowLimits
from juinie_publisher.telemetry import Telemetry
from juinie_shared.contracts.rendered_record import RenderedRecord
from juinie_shared.domain.errors import KafkaAway, Permanent, Transient
from juinie_shared.domain.ids import SHARDS, RunId, Seq

POLL_SECONDS = 0.1
"""How late a row is at most when no notification comes."""
PATIENCE_SECONDS = 0.25
"""How long a round waits for its slowest partition. Then it goes on without it."""
MOST_RUNS_LEFT_OUT = 100_000
"""What a fetch may be asked to leave out. Where more wait for partitions that are slow or fail, nothing is fetched until one is done, and what others
could have is not found for as long as these do."""


class BatchFailed(KafkaAway):
    """A batch was refused, or its acknowledgement did not come. `end`: where the next batch would have begun."""

    def __init__(self, end: int) -> None:
        super().__init__()
        self.end = end


class RecordRefused(Permanent):
    """A record can never be sent as it is. `reason` says why, in one word."""

    def __init__(self, reason: str) -> None:
        super().__init__()
        self.reason = reason


class Outbox(Protocol):
    async def fetch(self, shards: Iterable[int], limits: WindowLimits, without: Collection[RunId]) -> Window:
        """The oldest rows of these shards, so many of each: nothing of the runs `without`, of each other run a prefix of what is left."""
        ...

    async def fetch_oldest(self, limits: WindowLimits) -> Window:
        """The oldest rows of all: of each run a prefix."""
        ...

    async def delete(self, ids: Sequence[int]) -> None:
        """Forget these rows."""
        ...


class DeadLetters(Protocol):
    async def park(self, row_id: int, seq: Seq, reason: str) -> bool:
        """Set the first unsent seq of a row aside. The rest of the row keeps its place."""
        ...


class Topic(Protocol):
    async def connect(self) -> None:
        """Be ready to send. Raises KafkaAway."""
        ...

    @property
    def partitions(self) -> int:
        """How many there are now."""
        ...

    def partition_of(self, key: bytes) -> int:
        """Where the records of this key lie."""
        ...

    async def send(self, partition: int, records: Sequence[RenderedRecord], start: int) -> int:
        """Send one batch, of the records from `start` on that fit, and await its ack. Gives where the next begins.

        Raises BatchFailed: it is unknown whether the batch arrived. KafkaAway: there is nowhere to send to.
        RecordRefused: the record at `start` can never be sent.
        """
        ...


class Relay:
    """Moves rows from the outbox to the topic until it is told to stop."""

    def __init__(
        self, outbox: Outbox, dead_letters: DeadLetters, topic: Topic, doorbell: Doorbell, telemetry: Telemetry,
        limits: WindowLimits | None = None, backoff: RunBackoff | None = None,
        shards: Callable[[], Iterable[int]] = lambda: range(SHARDS),
    ) -> None:  # fmt: skip
        """`shards`: those that are this publisher's at this moment."""
        self._outbox = outbox
        self._dead_letters = dead_letters
        self._topic = topic
        self._doorbell = doorbell
        self._telemetry = telemetry
        self._limits = limits or WindowLimits()
        self._backoff = backoff or RunBackoff()
        self._shards = shards
        self._lanes = Lanes()
        self._turns = Turns()

    async def run(self, stopping: asyncio.Event) -> None:
        """Relay until `stopping` is set. What is on its way then is waited for."""
        failures = 0
        try:
            while not stopping.is_set():
                try:
                    more = await self.round()
                except Transient as error:
                    self._telemetry.failed("relay", error)
                    failures += 1
                    await pause(stopping, delay_seconds(failures))
                else:
                    failures = 0
                    if not more:
                        await self._doorbell.wait(POLL_SECONDS)
            await self.drain()
        finally:
            await self._lanes.abandon()

    async def round(self) -> bool:
        """Fetch, send, await the acks, delete. Gives whether more was waiting."""
        await self._connect()
        await self._forget(self._lanes.ended())
        shards, left_out = list(self._shards()), {*self._lanes.runs, *self._backoff.resting()}
        self._telemetry.held_back(len(left_out))
        if not shards or self._lanes.taken >= self._topic.partitions or len(left_out) > MOST_RUNS_LEFT_OUT:
            return False
        window = await self._fetch(shards, left_out)
        if not (window.rows or left_out):
            self._telemetry.relay_goes_on()
        ours = frozenset(self._shards())  # again: we may have been paused, or lost some, while we fetched
        rows = [row for row in window.rows if row.shard in ours]
        groups = self._lanes.free(group_by_partition(rows, self._topic.partition_of))
        if groups:
            await self._publish(groups, window)
        return window.full

    async def drain(self) -> None:
        """Wait for what is on its way, and forget what of it Kafka has."""
        try:
            await self._forget(await self._lanes.all_ended())
        except Transient as error:  # it is sent again by whoever comes next
            self._telemetry.failed("relay", error)

    async def _connect(self) -> None:
        try:
            await self._topic.connect()
        except KafkaAway as error:
            self._telemetry.kafka_is(away=True, reason=str(error.__cause__ or error))
            raise
        self._telemetry.kafka_is(away=False)

    async def _fetch(self, shards: Collection[int], left_out: Collection[RunId]) -> Window:
        troubled = bool(left_out) or self._backoff.any_failed or len(shards) < SHARDS
        if self._turns.by_shard(troubled):
            window = await self._outbox.fetch(shards, self._limits, left_out)
        else:
            window = await self._outbox.fetch_oldest(self._limits)
        if not window.full:
            self._turns.all_given()
        return window

    async def _publish(self, groups: Mapping[int, Sequence[PendingRow]], window: Window) -> None:
        """Send to all these partitions at once, and go on without those that are late."""
        with self._telemetry.round() as carries:
            sending = [
                self._lanes.take(partition, group, self._publish_to(partition, group, window.fetched_at))
                for partition, group in groups.items()
            ]
            await asyncio.wait(sending, timeout=PATIENCE_SECONDS)
            self._tell(groups, carries)
            await self._forget(self._lanes.ended())

    async def _publish_to(self, partition: int, rows: Sequence[PendingRow], fetched_at: float) -> Outcome:
        """One batch after the other, each once the one before is acknowledged. Ends with the first that fails."""
        records = [record for row in rows for record in row.records]
        acked = 0
        try:
            while acked < len(records):
                acked = await self._send_or_park(partition, rows, records, acked)
        except Transient as error:
            self._telemetry.failed("relay", error)
            end = error.end if isinstance(error, BatchFailed) else len(records)
            whole = rows_within(rows, acked)
            outcome, published = Outcome(whole, rows_begun(rows, end)[len(whole) :]), record_count(whole)
        else:
            outcome, published = Outcome(rows, ()), len(records)
        self._telemetry.published([row.age_seconds for row in outcome.acked], fetched_at, published)
        return outcome

    async def _send_or_park(
        self, partition: int, rows: Sequence[PendingRow], records: Sequence[RenderedRecord], start: int
    ) -> int:
        """Send one batch; where its first record can never be sent, park that instead. Gives where the next begins."""
        try:
            return await self._topic.send(partition, records, start)
        except RecordRefused as refused:
            row, record = rows[len(rows_within(rows, start))], records[start]
            if await self._dead_letters.park(row.id, record.seq, refused.reason):
                self._telemetry.parked(record.run_id, record.seq, refused.reason)
            return start + 1

    async def _forget(self, outcomes: Sequence[Outcome]) -> None:
        """Delete what Kafka has. Let the runs whose batch failed wait; those behind them go on without them."""
        if not outcomes:
            return
        acked = [row for outcome in outcomes for row in outcome.acked]
        failed = {row.run_id for outcome in outcomes for row in outcome.failed}
        if failed or self._backoff.any_failed:
            self._backoff.settle({row.run_id for row in acked} - failed, failed)
        await self._outbox.delete([row.id for row in acked])

    def _tell(
        self,
        groups: Mapping[int, Sequence[PendingRow]],
        carries: Callable[[Iterable[str | None], int], None],
    ) -> None:
        """What a round carries, and what it cannot: events that were purged before they were published. Their row must not stay for ever."""
        rows = [row for group in groups.values() for row in group]
        records = record_count(rows)
        carries([row.traceparent for row in rows], records)
        if records == sum([row.last_seq - row.first_seq + 1 for row in rows]):
            return
        for row in rows:
            if row.events_missing:
                self._telemetry.events_missing(row.run_id, row.first_seq, row.last_seq, row.events_missing)
