"""A topic, behind one idempotent producer that is replaced as soon as a batch of it failed.

A failed batch leaves a hole in the producer's sequence numbers, after which the broker refuses everything from it;
and a producer that is not stopped tries its batches for ever. So a failure is never mended, always replaced.
Every wait is bounded.

What a broker would refuse for its size is refused here, by the topic's own limit: no batch fails for it. The limit may be
raised at any time, so it is read again before a record is refused. Where it cannot be read, a refused batch is halved until
the record that is too large is alone.
"""

import asyncio
import time
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import asynccontextmanager
from functools import lru_cache, partial
from itertools import islice
from operator import methodcaller
from typing import Any, Protocol

import aiokafka
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.errors import (
    KafkaError,
    MessageSizeTooLargeError,
    RecordListTooLargeError,
    UnknownTopicOrPartitionError,
)
from aiokafka.partitioner import murmur2  # pyright: ignore[reportUnknownVariableType] - aiokafka has no types there

from juinie_publisher.core.relay import BatchFailed, RecordRefused
from juinie_publisher.edges.joined_once import join_once
from juinie_publisher.edges.record_batch import RecordBatch
from juinie_publisher.edges.starting import Background, start_within
from juinie_publisher.edges.topic_admin import TopicPlan, ensure_topic, max_message_bytes
from juinie_shared.domain.errors import KafkaAway
from juinie_shared.runtime.unbroken import BrokenOff, unbroken

REQUEST_SECONDS = 4.0
ACK_SECONDS = 5.0
CONNECT_SECONDS = 5.0
CLOSE_SECONDS = REQUEST_SECONDS
"""How long what was put away may take when the process ends: a start that a broker does not answer, for one."""
METADATA_RETRY_SECONDS = 0.05
BATCH_BYTES = 1_000_000
"""Below the broker's `message.max.bytes` (1,048,588 when nobody changed it), which counts the whole batch."""

LIMIT_SECONDS = 10.0
"""For how long the topic's limit is taken as it was read: so often at most it is asked for what is too large."""

TOO_LARGE = "message_too_large"
NOT_ENCODABLE = "not_encodable"

_AWAY = (KafkaError, OSError, TimeoutError, BrokenOff)
# What a broker says of a batch that it will never take. All else may pass.
_REFUSED = (MessageSizeTooLargeError, RecordListTooLargeError)
_UNENCODABLE = (UnicodeError, ValueError, IndexError, OverflowError, TypeError)


class Record(Protocol):
    """What is sent: see the record contracts."""

    def packed(self) -> bytes: ...


_packed = methodcaller("packed")


class KafkaTopic:
    """Where records go. Not connected until `connect`."""

    def __init__(self, bootstrap_servers: str, plan: TopicPlan, on_created: Callable[[], None]) -> None:
        self._bootstrap_servers = bootstrap_servers
        self._plan = plan
        self._on_created = on_created
        self._producer: Any = None
        self._failed = False
        self._max_message_bytes: int | None = None
        self._limit_read_at = 0.0
        self._reading_limit = asyncio.Lock()
        self._most_bytes: dict[int, int] = {}
        """Of a batch, by partition, where a broker has refused one that was larger, for a limit that nobody told us."""
        self._background = Background()

    async def connect(self) -> None:
        """Have a producer that never failed, and a topic with partitions. Costs nothing while both are there.

        Raises:
            KafkaAway: no broker answered in time, or it would not take us.
        """
        if self._producer is not None and not self._failed and self._partitions():
            return
        self._put_away()
        try:
            async with asyncio.timeout(CONNECT_SECONDS):
                await unbroken(self._find_topic)
                await unbroken(self._start_producer)
        except _AWAY as error:
            self._put_away()
            raise KafkaAway from error

    @property
    def partitions(self) -> int:
        """How many the topic has, as far as is known. 0: it is gone, or nobody is connected."""
        return len(self._partitions())

    def partition_of(self, key: bytes) -> int:
        """As Kafka's default partitioner has it: murmur2 of the key over the topic's partitions.

        Raises:
            KafkaAway: the topic is gone.
        """
        partitions = self._partitions()
        if not partitions:
            self._failed = True
            raise KafkaAway
        return partitions[(_hash(key) & 0x7FFFFFFF) % len(partitions)]

    async def send(self, partition: int, records: Sequence[Record], start: int) -> int:
        """Send one batch of the records from `start` on, as many as fit, and await its ack. Gives where the next begins.

        Raises:
            RecordRefused: the record at `start` can never be sent: it is too large, or cannot be encoded.
            BatchFailed: no ack in time, or a refusal. Whether the batch arrived is unknown.
            KafkaAway: the partition is gone, or the limit cannot be read that the record at `start` is above.
        """
        if (
            partition not in self._partitions()
        ):  # aiokafka would ask for it, and brokers create what is asked for
            self._failed = True
            raise KafkaAway
        producer = self._producer
        batch, end = self._fill(records, start, self._most_bytes.get(partition, BATCH_BYTES))
        if self._is_too_large(batch) and await self._is_too_large_now(batch):
            raise RecordRefused(TOO_LARGE)
        try:
            async with asyncio.timeout(ACK_SECONDS):
                await unbroken(self._acknowledged, producer, batch, partition)
        except _REFUSED as error:
            self._has_failed(producer)
            self._narrow(partition, batch)
            raise BatchFailed(end) from error
        except _AWAY as error:
            self._has_failed(producer)
            raise BatchFailed(end) from error
        return end

    async def is_reachable(self, within_seconds: float) -> bool:
        """Whether a broker answers now. Also refreshes what is known of the topic, so that a deleted one is missed."""
        if self._producer is None or self._failed:
            return False
        try:
            async with asyncio.timeout(within_seconds):
                return bool(await unbroken(self._producer.client.force_metadata_update))
        except _AWAY:
            return False

    async def close(self) -> None:
        """Close the producer, and wait a moment for what was put away."""
        self._put_away()
        await self._background.wait(CLOSE_SECONDS)

    def _has_failed(self, producer: Any) -> None:
        """It is replaced at the next `connect`, unless it has been replaced since."""
        if producer is self._producer:
            self._failed = True

    def _narrow(self, partition: int, batch: RecordBatch) -> None:
        """This one was too large, for a limit that nobody told us: batches are half as large from now on, until that limit changes."""
        if batch.record_count() == 1:
            raise RecordRefused(TOO_LARGE)
        self._most_bytes[partition] = batch.size() // 2

    def _fill(self, records: Sequence[Record], start: int, most_bytes: int) -> tuple[RecordBatch, int]:
        """A batch with the records from `start` on that fit into it: one at least."""
        batch = RecordBatch(min(most_bytes, self._max_message_bytes or BATCH_BYTES))
        try:
            batch.fill(map(_packed, islice(records, start, None)))
        except _UNENCODABLE as error:
            if not batch.record_count():
                raise RecordRefused(NOT_ENCODABLE) from error
        return batch, start + batch.record_count()

    async def _acknowledged(self, producer: Any, batch: RecordBatch, partition: int) -> None:
        """Give a batch to the producer, and await its ack."""
        try:
            ack = await producer.send_batch(batch, self._plan.name, partition=partition)
        except (
            AssertionError,
            TypeError,
        ) as error:  # aiokafka's, where the partition has just left its metadata
            raise UnknownTopicOrPartitionError from error
        await ack

    def _is_too_large(self, batch: RecordBatch) -> bool:
        """Only a record that is alone can be: others are added to it while they fit."""
        return self._max_message_bytes is not None and batch.size() > self._max_message_bytes

    async def _is_too_large_now(self, batch: RecordBatch) -> bool:
        """Whether it is so by the topic's limit of today.

        Raises:
            KafkaAway: that could not be read.
        """
        async with self._reading_limit:
            if self._is_too_large(batch) and time.monotonic() - self._limit_read_at >= LIMIT_SECONDS:
                try:
                    async with asyncio.timeout(CONNECT_SECONDS), self._admin() as admin:
                        self._limit_is(await unbroken(max_message_bytes, admin, self._plan.name))
                except _AWAY as error:
                    raise KafkaAway from error
        return self._is_too_large(batch)

    def _limit_is(self, size: int | None) -> None:
        if size != self._max_message_bytes:
            self._most_bytes.clear()
        self._max_message_bytes, self._limit_read_at = size, time.monotonic()

    def _partitions(self) -> list[int]:
        if self._producer is None:
            return []
        return sorted(self._producer.client.cluster.partitions_for_topic(self._plan.name) or ())

    async def _find_topic(self) -> None:
        """See that the topic is there, and how large its messages may be."""
        async with self._admin() as admin:
            found = await ensure_topic(admin, self._plan)
        self._limit_is(found.max_message_bytes)
        if found.created:
            self._on_created()

    @asynccontextmanager
    async def _admin(self) -> AsyncGenerator[Any]:
        admin: Any = AIOKafkaAdminClient(
            bootstrap_servers=self._bootstrap_servers, client_id="juinie-publisher",
            request_timeout_ms=int(REQUEST_SECONDS * 1000),
        )  # fmt: skip
        await start_within(admin, admin.close, CONNECT_SECONDS, self._background)
        try:
            yield admin
        finally:
            self._background.add(admin.close())

    async def _start_producer(self) -> None:
        producer: Any = aiokafka.AIOKafkaProducer(
            bootstrap_servers=self._bootstrap_servers,
            client_id="juinie-publisher",
            acks="all",
            enable_idempotence=True,
            request_timeout_ms=int(REQUEST_SECONDS * 1000),
            metadata_max_age_ms=10_000,
        )
        join_once(producer)
        await start_within(producer, partial(_stop, producer), CONNECT_SECONDS, self._background)
        self._failed = False
        self._producer = producer
        while not self._partitions():
            await asyncio.sleep(METADATA_RETRY_SECONDS)
            await producer.client.force_metadata_update()

    def _put_away(self) -> None:
        """Let go of the producer; it is stopped behind our back, as a broker that hangs makes that slow."""
        if self._producer is not None:
            self._background.add(_stop(self._producer))
            self._producer = None


async def _stop(producer: Any) -> None:
    """Stop a producer without its batches: its own `stop` waits until they are acknowledged, be it for ever."""
    producer._closed = True  # noqa: SLF001 - aiokafka has no way to give up
    sender = producer._sender.sender_task  # noqa: SLF001 - as above
    if sender is not None:
        sender.cancel()
        await asyncio.wait({sender}, timeout=REQUEST_SECONDS + CLOSE_SECONDS)
    await producer.client.close()


@lru_cache(maxsize=65_536)
def _hash(key: bytes) -> int:
    """murmur2, which is pure Python and slow, once a run."""
    return murmur2(key)
