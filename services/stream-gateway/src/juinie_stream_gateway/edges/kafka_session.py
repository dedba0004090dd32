"""One session with Kafka: every partition that has a leader is assigned, at a known position, paused where nobody watches.

A session never mends itself. It finds out that it is no good any more and says so; a new one takes its place. A partition without a
leader is left out: aiokafka would ask for no end of any other because of it, and fetch with a request for metadata after the other.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable, Collection
from contextlib import suppress
from functools import lru_cache, partial
from itertools import islice
from struct import Struct
from typing import Any

from aiokafka import TopicPartition
from aiokafka.errors import KafkaError

from juinie_shared.domain.errors import KafkaAway
from juinie_shared.domain.ids import RunId
from juinie_shared.runtime.unbroken import BrokenOff, unbroken
from juinie_stream_gateway.core.hub import Hub, Room

PROBE_SECONDS = 3.0
ANSWER_SECONDS = 5.0
LISTEN_SECONDS = 1.0


class Session:
    """A consumer with these partitions of the topic assigned, each at a known position, paused where nobody watches.

    `partitions`: how many the topic has; `led`: those that had a leader, which are assigned.
    """

    def __init__(
        self, consumer: Any, topic: str, partitions: int, led: Collection[TopicPartition], hub: Hub
    ) -> None:
        self._consumer = consumer
        self._topic = topic
        self._led = self._led_before = frozenset(led)
        self._news: asyncio.Future[bool] | None = None
        """What the brokers say of leaders, asked for the next look: else that is up to ten seconds old."""
        self._hub = hub
        self._active: set[TopicPartition] = set()
        self._activating = asyncio.Lock()
        self._before: dict[TopicPartition, tuple[int, int]] = {}
        self.partitions = partitions
        self.reached: dict[TopicPartition, int] = {}
        """How far each partition is known to be. One that is shorter later has lost what it held."""

    def partition_of(self, run_id: RunId) -> TopicPartition:
        """Where the publisher puts this run (Kafka's default partitioner)."""
        return self._partition(_hash(run_id))

    def partition_of_room(self, room: Room) -> TopicPartition:
        """The same, worked out once for as long as somebody watches."""
        if room.key_hash is None:
            room.key_hash = _hash(room.run_id)
        return self._partition(room.key_hash)

    def reads(self, room: Room) -> bool:
        return self.partition_of_room(room) in self._active

    async def activate(self, *partitions: TopicPartition) -> None:
        """Read these partitions from their end, but for those that had no leader. What they held while they were paused is history:
        Postgres has it.

        Raises:
            KafkaAway: one is shorter than it was. The next session tells what is gone.
        """
        async with self._activating:
            paused = [partition for partition in partitions if partition in self._led - self._active]
            if not paused:
                return
            ends = await self._consumer.end_offsets(paused)
            if any(end < self.reached.get(partition, 0) for partition, end in ends.items()):
                raise KafkaAway("Records that were there are gone.")
            for partition in paused:
                self._consumer.seek(partition, ends[partition])
                self._consumer.resume(partition)
                self._active.add(partition)
            self.reached.update(ends)

    async def watch(self) -> None:
        """See every few seconds that Kafka answers, that fetching goes on, and that no partition is new, or without a leader, or has one again.

        Raises:
            KafkaAway: this session is no good any more.
        """
        while True:
            await asyncio.sleep(PROBE_SECONDS)
            self._pause_unwatched()
            async with asyncio.timeout(ANSWER_SECONDS):
                await self.activate(*self.watched())
                await self._see_progress()
            if len(self._consumer.partitions_for_topic(self._topic) or ()) != self.partitions:
                raise KafkaAway("The topic's partitions have changed.")
            self._see_leaders()

    def _pause_unwatched(self) -> None:
        watched = self.watched()
        if self._activating.locked():
            return
        for partition in self._active - watched:
            self._consumer.pause(partition)
            self._active.discard(partition)
            self._before.pop(partition, None)

    def watched(self) -> set[TopicPartition]:
        return {self.partition_of_room(room) for room in self._hub.rooms()}

    def _partition(self, key_hash: int) -> TopicPartition:
        return TopicPartition(self._topic, key_hash % self.partitions)

    async def _see_progress(self) -> None:
        """A consumer can hang after its broker came back (every client's tracker has such a case)."""
        active = set(self._active)
        ends = await self._consumer.end_offsets(active or set(islice(self._led, 1)))
        now = {partition: (await self._consumer.position(partition), ends[partition]) for partition in active}
        for partition, (position, _) in now.items():
            was_at, had_end = self._before.get(partition, (position, position))
            if position == was_at < had_end:
                raise KafkaAway("Records are there and are not fetched.")
        self._before = now

    def _see_leaders(self) -> None:
        """Two answers that say the same: a broker that is cut off from its cluster, and is asked as any other, says what was true before."""
        client = self._consumer._client  # noqa: SLF001 - nobody else knows
        if self._news is not None and not (self._news.done() and self._news.result()):
            if self._news.done():  # nobody answered
                self._news = client.force_metadata_update()
            return
        led = _led(client.cluster, self._topic)
        if led == self._led_before != self._led:
            raise KafkaAway("Other partitions have a leader now.")
        self._led_before = led
        lacks = len(self._led) < self.partitions or led != self._led
        self._news = client.force_metadata_update() if lacks else None


async def open_session(consumer: Any, topic: str, hub: Hub) -> Session:
    """Wait for nothing: a topic that is not there yet is Kafka away, tried again soon.

    Asked through the list of all topics, because asking for one by name could create it.
    """
    cluster = await consumer._client.fetch_all_metadata()  # noqa: SLF001 - `topics` keeps the leaders to itself
    partitions: set[int] = cluster.partitions_for_topic(topic) or set()
    if not partitions:
        raise KafkaAway("The topic does not exist yet.")
    led = _led(cluster, topic)
    if not led:
        raise KafkaAway("No partition has a leader.")
    ends = await consumer.end_offsets(led)
    consumer.assign(sorted(led))
    for partition in led:
        consumer.seek(partition, ends[partition])
        consumer.pause(partition)
    session = Session(consumer, topic, len(partitions), led, hub)
    session.reached.update(ends)
    return session


def _led(cluster: Any, topic: str) -> frozenset[TopicPartition]:
    """The topic's partitions that have a leader, as far as is known."""
    numbers: set[int] = cluster.available_partitions_for_topic(topic) or set()
    return frozenset(TopicPartition(topic, number) for number in numbers)


async def start_consumer(consumer: Any) -> None:
    """Start it. aiokafka drops the connection it talks over, open, when its start is cancelled."""
    await _to_its_end(consumer.start)


async def stop_consumer(consumer: Any) -> None:
    """Stop it, whoever is cancelled meanwhile: half stopped, it would go on fetching."""
    try:
        async with asyncio.timeout(LISTEN_SECONDS):
            await _to_its_end(partial(_stop_wholly, consumer))
    except Exception:  # noqa: BLE001 - whatever a client library raises: it must not take the place of a cancellation
        return


async def _stop_wholly(consumer: Any) -> None:
    """aiokafka's `stop` breaks off in the middle where a fetch has just failed: by a cancellation that it lets escape.

    (Seen with 0.14: `Fetcher.close` awaits the tasks that it cancels.) Its connections would stay open then.
    """
    with suppress(BrokenOff):
        await unbroken(consumer.stop)
        return
    await consumer._client.close()  # noqa: SLF001 - what `stop` would have done next


async def _to_its_end(work: Callable[[], Awaitable[None]]) -> None:
    """Do what must not be broken off. Who is cancelled meanwhile, be it twice, waits a moment before breaking it off."""
    working = asyncio.create_task(unbroken(work))
    try:
        await asyncio.shield(working)
    except asyncio.CancelledError:
        until = time.monotonic() + LISTEN_SECONDS
        while not working.done() and (left := until - time.monotonic()) > 0:
            with suppress(asyncio.CancelledError):
                await asyncio.wait({working}, timeout=left)
        working.cancel()
        with suppress(KafkaError, OSError, BrokenOff, asyncio.CancelledError):
            await working
        raise


@lru_cache(maxsize=1024)
def _hash(run_id: RunId) -> int:
    """For whoever asks before there is a room. Few are remembered: they may be of runs that nobody watches."""
    return murmur2(str(run_id).encode()) & 0x7FFFFFFF


def murmur2(key: bytes) -> int:
    """murmur2 of a run's key, which has 36 bytes, as Kafka's default partitioner has it. aiokafka's takes it byte by byte."""
    hashed = 0x9747B28C ^ 36
    for word in _words(key):
        mixed = word * _M & 0xFFFFFFFF
        hashed = (hashed * _M ^ (mixed ^ mixed >> 24) * _M) & 0xFFFFFFFF
    hashed = (hashed ^ hashed >> 13) * _M & 0xFFFFFFFF
    return hashed ^ hashed >> 15


_M = 0x5BD1E995
_words = Struct("<9I").unpack
