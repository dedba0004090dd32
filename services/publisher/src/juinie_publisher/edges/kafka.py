"""The topic of run events, behind one idempotent producer that is replaced as soon as a batch of it failed.

A failed batch leaves a hole in the producer's sequence numbers, after which the broker refuses everything from it;
and a producer that is not stopped tries its batches for ever. So a failure is never mended, always replaced.
Every wait is bounded.
"""

import asyncio
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any

import aiokafka
from aiokafka.errors import KafkaError
from aiokafka.partitioner import murmur2  # pyright: ignore[reportUnknownVariableType] - aiokafka has no types there

from juinie_publisher.core.relay import BatchFailed
from juinie_publisher.edges.topic_admin import TopicPlan, ensure_topic
from juinie_shared.contracts.record import RunEventRecord
from juinie_shared.domain.errors import KafkaAway

REQUEST_SECONDS = 4.0
ACK_SECONDS = 5.0
CONNECT_SECONDS = 5.0
CLOSE_SECONDS = 1.0
METADATA_RETRY_SECONDS = 0.05
BATCH_BYTES = 1_000_000
"""Below the broker's `message.max.bytes` (1,048,588 when nobody changed it), which counts the whole batch."""

# aiokafka trips over missing metadata with its own assertions before it says that a broker is away.
_AWAY = (KafkaError, OSError, TimeoutError, AssertionError, AttributeError, TypeError)


class RunEventTopic:
    """Where run events go on Kafka. Not connected until `connect`."""

    def __init__(self, bootstrap_servers: str, plan: TopicPlan, on_created: Callable[[], None]) -> None:
        self._bootstrap_servers = bootstrap_servers
        self._plan = plan
        self._on_created = on_created
        self._producer: Any = None
        self._failed = False
        self._closing = set[asyncio.Task[None]]()

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
                if await ensure_topic(self._bootstrap_servers, self._plan, REQUEST_SECONDS):
                    self._on_created()
                await self._start_producer()
        except _AWAY as error:
            self._put_away()
            raise KafkaAway from error

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

    async def send(self, partition: int, records: Sequence[RunEventRecord], start: int) -> int:
        """Send one batch of the records from `start` on, as many as fit, and await its ack. Gives where the next begins.

        Raises:
            BatchFailed: no ack in time, or a refusal. Whether the batch arrived is unknown.
            KafkaAway: the partition is gone.
        """
        if (
            partition not in self._partitions()
        ):  # aiokafka would ask for the topic, and brokers create what is asked for
            self._failed = True
            raise KafkaAway
        batch, end = self._fill(records, start)
        try:
            async with asyncio.timeout(ACK_SECONDS):
                ack = await self._producer.send_batch(batch, self._plan.name, partition=partition)
                await ack
        except _AWAY as error:
            self._failed = True
            raise BatchFailed(end) from error
        return end

    async def is_reachable(self, within_seconds: float) -> bool:
        """Whether a broker answers now. Also refreshes what is known of the topic, so that a deleted one is missed."""
        if self._producer is None or self._failed:
            return False
        try:
            async with asyncio.timeout(within_seconds):
                return bool(await self._producer.client.force_metadata_update())
        except _AWAY:
            return False

    async def close(self) -> None:
        """Close the producer, and wait a moment for those that were put away."""
        self._put_away()
        if self._closing:
            _, left = await asyncio.wait(self._closing, timeout=CLOSE_SECONDS)
            for task in left:
                task.cancel()

    def _fill(self, records: Sequence[RunEventRecord], start: int) -> tuple[Any, int]:
        """A batch with the records from `start` on that fit into it: at least one, whatever its size."""
        batch = self._producer.create_batch()
        end = start
        while end < len(records):
            record = records[end]
            if (
                batch.append(key=record.key, value=record.value, timestamp=None, headers=record.headers())
                is None
            ):
                break
            end += 1
        return batch, end

    def _partitions(self) -> list[int]:
        return sorted(self._producer.client.cluster.partitions_for_topic(self._plan.name) or ())

    async def _start_producer(self) -> None:
        self._failed = False
        self._producer = aiokafka.AIOKafkaProducer(
            bootstrap_servers=self._bootstrap_servers,
            client_id="juinie-publisher",
            acks="all",
            enable_idempotence=True,
            max_batch_size=BATCH_BYTES,
            request_timeout_ms=int(REQUEST_SECONDS * 1000),
            metadata_max_age_ms=10_000,
        )
        await self._producer.start()
        while not self._partitions():
            await asyncio.sleep(METADATA_RETRY_SECONDS)
            await self._producer.client.force_metadata_update()

    def _put_away(self) -> None:
        """Let go of the producer; it is stopped behind our back, as a broker that hangs makes that slow."""
        if self._producer is not None:
            task = asyncio.create_task(_stop(self._producer))
            self._closing.add(task)
            task.add_done_callback(self._closing.discard)
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
