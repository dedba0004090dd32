"""Kafka's side of the gateway: reads the partitions of watched runs and hands their records to the hub.

No consumer group: every gateway reads what its own watchers need, from the end. Partitions without a watcher are
paused. Whatever goes wrong, the session is thrown away and a new one begins at the end: what was missed in between
the tail check finds in Postgres, so nothing here has to be clever about losing nothing.
"""

import asyncio
from collections.abc import Iterable, Sequence
from typing import Any, Literal, cast

from aiokafka import AIOKafkaConsumer, ConsumerRecord, TopicPartition
from aiokafka.errors import KafkaError, OffsetOutOfRangeError
from aiokafka.partitioner import murmur2  # pyright: ignore[reportUnknownVariableType] - has no types
from opentelemetry.trace import Link, SpanKind

from juinie_shared.contracts.record import RunEventRecord, read_record
from juinie_shared.contracts.sse import event_frame
from juinie_shared.domain.errors import BadRecord, KafkaAway
from juinie_shared.domain.ids import RunId
from juinie_shared.runtime.logs import get_logger
from juinie_shared.runtime.tracing import span_link
from juinie_stream_gateway.core.hub import Hub, Room
from juinie_stream_gateway.core.splice import Verdict
from juinie_stream_gateway.edges.latency import seconds_since
from juinie_stream_gateway.store import Event
from juinie_stream_gateway.telemetry import (
    LOG_KAFKA_AWAY,
    LOG_KAFKA_LIVE,
    LOG_KAFKA_POSITION_LOST,
    SPAN_POLL,
    Telemetry,
)

RETRY_SECONDS = 1.0
PROBE_SECONDS = 3.0
ANSWER_SECONDS = 5.0
LISTEN_SECONDS = 2.0
METADATA_MAX_AGE_MS = 10_000
"""New partitions are seen, and read, well within 30 s."""
FETCH_WAIT_MS = 250
"""A partition that is resumed waits for the fetch under way on its broker: this long at most."""
MOST_LINKS = 64

type Checked = tuple[Event, RunEventRecord]

_log = get_logger("kafka")


class RecordReader:
    """Keeps a session with Kafka while there is one to be had."""

    def __init__(self, hub: Hub, telemetry: Telemetry, bootstrap_servers: str, topic: str) -> None:
        self._hub = hub
        self._telemetry = telemetry
        self._bootstrap_servers = bootstrap_servers
        self._topic = topic
        self._session: _Session | None = None
        self._told_away = False
        self.settled = asyncio.Event()
        """Kafka has answered, or has not: until then nobody knows which streams are live."""

    async def run(self) -> None:
        """For ever."""
        while True:
            try:
                await self._read()
            except Exception as error:  # noqa: BLE001 - whatever a client library raises: streams go on from Postgres
                self._lost(error)
            await asyncio.sleep(RETRY_SECONDS)

    async def listen(self, run_id: RunId) -> None:
        """Return once this run's records are being read, or cannot be for now: then the tail check stands in."""
        session = self._session
        if session is None:
            return
        try:
            async with asyncio.timeout(LISTEN_SECONDS):
                await session.activate(session.partition_of(run_id))
        except (KafkaError, TimeoutError, OSError):
            return

    async def _read(self) -> None:
        consumer = self._consumer()
        try:
            async with asyncio.timeout(ANSWER_SECONDS):
                await consumer.start()
                self._session = session = await _open_session(consumer, self._topic, self._hub)
                await session.activate(*session.watched())
            self._found(session)
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(session.watch())
                tasks.create_task(self._poll(consumer))
        finally:
            self._session = None
            self._hub.kafka_live = False
            await _stop(consumer)

    def _consumer(self) -> Any:
        return AIOKafkaConsumer(
            bootstrap_servers=self._bootstrap_servers,
            client_id="juinie-stream-gateway",
            group_id=None,
            enable_auto_commit=False,
            auto_offset_reset="none",
            metadata_max_age_ms=METADATA_MAX_AGE_MS,
            request_timeout_ms=int(ANSWER_SECONDS * 1000),
            fetch_max_wait_ms=FETCH_WAIT_MS,
            fetch_max_bytes=8 * 1024 * 1024,
        )

    async def _poll(self, consumer: Any) -> None:
        while True:
            batches = await consumer.getmany(timeout_ms=1000, max_records=500)
            self._take(record for records in batches.values() for record in records)
            await asyncio.sleep(0)  # getmany does not wait while it has records; others want the loop too

    # ---- records

    def _take(self, records: Iterable[ConsumerRecord[bytes, bytes]]) -> None:
        """Sort a poll's records by run, and hand on those that are what they say they are."""
        by_room: dict[Room, list[Checked]] = {}
        for record in records:
            room = self._hub.room_of(record.key)
            if room is None:
                continue
            checked = checked_event(record.key, record.value, record.headers, room)
            if isinstance(checked, str):
                self._telemetry.records.labels(checked).inc()
            else:
                by_room.setdefault(room, []).append(checked)
        if by_room:
            self._hand_on_all(by_room)

    def _hand_on_all(self, by_room: dict[Room, list[Checked]]) -> None:
        links = _links(record for batch in by_room.values() for _, record in batch)
        with self._telemetry.tracer.start_as_current_span(
            SPAN_POLL, kind=SpanKind.CONSUMER, links=links
        ) as span:
            span.set_attribute("messaging.batch.message_count", sum(map(len, by_room.values())))
            for room, batch in by_room.items():
                self._hand_on(room, batch)

    def _hand_on(self, room: Room, batch: list[Checked]) -> None:
        verdicts = self._hub.take_records(room, (event for event, _ in batch))
        for (_, record), verdict in zip(batch, verdicts, strict=True):
            self._telemetry.records.labels(verdict.value).inc()
            if verdict is Verdict.NEXT and (late := seconds_since(record.time)) is not None:
                self._telemetry.append_to_socket.observe(late)

    # ---- mode

    def _found(self, session: "_Session") -> None:
        self._hub.kafka_live = True
        self._told_away = False
        self._telemetry.mode(live=True)
        self.settled.set()
        _log.info(LOG_KAFKA_LIVE, partitions=session.partitions)

    def _lost(self, error: Exception) -> None:
        """Tell it once per outage, not once per try."""
        self._telemetry.mode(live=False)
        self.settled.set()
        cause = _first(error)
        if isinstance(cause, OffsetOutOfRangeError):
            self._telemetry.position_lost.inc()
            _log.warning(LOG_KAFKA_POSITION_LOST)
        elif not self._told_away:
            self._told_away = True
            _log.warning(LOG_KAFKA_AWAY, error=type(cause).__name__, exc_info=_unexpected(cause))


class _Session:
    """A consumer with all partitions of the topic assigned, each at a known position, paused where nobody watches."""

    def __init__(self, consumer: Any, topic: str, partitions: int, hub: Hub) -> None:
        self._consumer = consumer
        self._topic = topic
        self._hub = hub
        self._active: set[TopicPartition] = set()
        self._activating = asyncio.Lock()
        self._before: dict[TopicPartition, tuple[int, int]] = {}
        self.partitions = partitions

    def partition_of(self, run_id: RunId) -> TopicPartition:
        """Where the publisher puts this run (Kafka's default partitioner)."""
        hashed = murmur2(str(run_id).encode()) & 0x7FFFFFFF
        return TopicPartition(self._topic, hashed % self.partitions)

    async def activate(self, *partitions: TopicPartition) -> None:
        """Read these partitions from their end. What they held while they were paused is history: Postgres has it."""
        async with self._activating:
            paused = [partition for partition in partitions if partition not in self._active]
            if not paused:
                return
            ends = await self._consumer.end_offsets(paused)
            for partition in paused:
                self._consumer.seek(partition, ends[partition])
                self._consumer.resume(partition)
                self._active.add(partition)

    async def watch(self) -> None:
        """See every few seconds that Kafka answers, that fetching goes on, and that no partition is new.

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

    def _pause_unwatched(self) -> None:
        watched = self.watched()
        if self._activating.locked():
            return
        for partition in self._active - watched:
            self._consumer.pause(partition)
            self._active.discard(partition)
            self._before.pop(partition, None)

    def watched(self) -> set[TopicPartition]:
        return {self.partition_of(room.run_id) for room in self._hub.rooms()}

    async def _see_progress(self) -> None:
        """A consumer can hang after its broker came back (every client's tracker has such a case)."""
        active = set(self._active)
        ends = await self._consumer.end_offsets(active or [TopicPartition(self._topic, 0)])
        now = {partition: (await self._consumer.position(partition), ends[partition]) for partition in active}
        for partition, (position, _) in now.items():
            was_at, had_end = self._before.get(partition, (position, position))
            if position == was_at < had_end:
                raise KafkaAway("Records are there and are not fetched.")
        self._before = now


async def _open_session(consumer: Any, topic: str, hub: Hub) -> _Session:
    """Wait for nothing: a topic that is not there yet is Kafka away, tried again soon.

    Asked through the list of all topics, because asking for one by name could create it.
    """
    if topic not in await consumer.topics():
        raise KafkaAway("The topic does not exist yet.")
    await consumer.end_offsets([TopicPartition(topic, 0)])  # brings the topic's metadata, too
    numbers: set[int] = consumer.partitions_for_topic(topic) or set()
    partitions = [TopicPartition(topic, number) for number in sorted(numbers)]
    ends = await consumer.end_offsets(partitions)
    consumer.assign(partitions)
    for partition in partitions:
        consumer.seek(partition, ends[partition])
        consumer.pause(partition)
    return _Session(consumer, topic, len(partitions), hub)


def _first(error: Exception) -> Exception:
    """What ended a session: of several tasks' errors, the first."""
    while isinstance(error, ExceptionGroup):
        error = cast("ExceptionGroup[Exception]", error).exceptions[0]
    return error


def _unexpected(error: Exception) -> Exception | None:
    return None if isinstance(error, KafkaError | KafkaAway | OSError | TimeoutError) else error


async def _stop(consumer: Any) -> None:
    try:
        async with asyncio.timeout(LISTEN_SECONDS):
            await consumer.stop()
    except (KafkaError, TimeoutError, OSError):
        return


def checked_event(
    key: bytes | None, value: bytes | None, headers: Sequence[tuple[str, bytes]], room: Room
) -> Checked | Literal["bad", "foreign"]:
    """The event that a record for this room's run carries, ready to send; or why it is none."""
    try:
        record = read_record(key, value, list(headers))
    except BadRecord:
        return "bad"
    if record.tenant_id != room.tenant_id:
        return "foreign"
    return Event(record.seq, record.type, event_frame(record.seq, record.value)), record


def _links(records: Iterable[RunEventRecord]) -> list[Link]:
    """Links to the spans that appended these events, each once, not too many."""
    traceparents = {record.traceparent for record in records if record.traceparent}
    links = (span_link(traceparent) for traceparent in list(traceparents)[:MOST_LINKS])
    return [link for link in links if link]
