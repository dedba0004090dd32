"""Kafka's side of the gateway: reads the partitions of watched runs and hands their records to the hub.

No consumer group: every gateway reads what its own watchers need, from the end. Partitions without a watcher are
paused. Whatever goes wrong, the session is thrown away and a new one begins at the end: what was missed in between
the tail check finds in Postgres, so nothing here has to be clever about losing nothing.
"""

import asyncio
import time
from collections import Counter
from collections.abc import Iterable, Sequence
from itertools import chain
from typing import Any, Literal, cast

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.errors import KafkaError, OffsetOutOfRangeError
from opentelemetry.trace import SpanKind

from juinie_shared.contracts.sse import event_frame
from juinie_shared.domain.errors import BadRecord, KafkaAway
from juinie_shared.domain.ids import RunId
from juinie_shared.runtime.logs import get_logger
from juinie_shared.runtime.tracing import link_sampled, recorded_span
from juinie_shared.runtime.unbroken import BrokenOff, unbroken
from juinie_stream_gateway.core.hub import Hub, Room
from juinie_stream_gateway.core.splice import Verdict
from juinie_stream_gateway.edges.bare_records import BareRecord, give_bare_records
from juinie_stream_gateway.edges.kafka_session import (
    ANSWER_SECONDS,
    LISTEN_SECONDS,
    Session,
    open_session,
    start_consumer,
    stop_consumer,
)
from juinie_stream_gateway.edges.latency import seconds_since
from juinie_stream_gateway.edges.linger import Linger
from juinie_stream_gateway.edges.plain_fetch import fetch_plainly
from juinie_stream_gateway.store import Event
from juinie_stream_gateway.telemetry import (
    LOG_KAFKA_AWAY,
    LOG_KAFKA_LIVE,
    LOG_KAFKA_POSITION_LOST,
    SPAN_POLL,
    Telemetry,
)

RETRY_SECONDS = 1.0
METADATA_MAX_AGE_MS = 10_000
"""New partitions are seen, and read, well within 30 s."""
FETCH_WAIT_MS = 250
"""A partition that is resumed waits for the fetch under way on its broker: this long at most, for no linger is longer."""

type Checked = tuple[Event, bytes, str | None]
"""With the event's time, and its trace."""

_log = get_logger("kafka")


class RecordReader:
    """Keeps a session with Kafka while there is one to be had."""

    def __init__(
        self, hub: Hub, telemetry: Telemetry, bootstrap_servers: str, topic: str, linger_seconds: float = 0.0
    ) -> None:
        """`linger_seconds`: see `Linger`."""
        self._linger_seconds = linger_seconds
        self._hub = hub
        self._telemetry = telemetry
        self._bootstrap_servers = bootstrap_servers
        self._topic = topic
        self._session: Session | None = None
        self._reached: dict[TopicPartition, int] = {}
        self._told_away = False
        self._count_next = telemetry.records.labels(Verdict.NEXT).inc
        self.settled = asyncio.Event()
        """Kafka has answered, or has not: until then nobody knows which streams are live."""

    async def run(self) -> None:
        """For ever."""
        while True:
            try:
                await unbroken(self._read)
            except Exception as error:  # noqa: BLE001 - whatever a client library raises: streams go on from Postgres
                self._lost(error)
            await asyncio.sleep(RETRY_SECONDS)

    async def listen(self, room: Room) -> None:
        """Return once the records of its run are being read, or cannot be for now: then the tail check stands in."""
        session = self._session
        if session is None or session.reads(room):
            return
        try:
            async with asyncio.timeout(LISTEN_SECONDS):
                await unbroken(session.activate, session.partition_of_room(room))
        except (KafkaError, KafkaAway, TimeoutError, OSError, BrokenOff):
            return

    def place_of(self, run_id: RunId) -> tuple[int, int] | None:
        """The run's partition, and how many there are; None while Kafka is away."""
        session = self._session
        return session and (session.partition_of(run_id).partition, session.partitions)

    async def _read(self) -> None:
        consumer = self._consumer()
        try:
            async with asyncio.timeout(ANSWER_SECONDS):
                await start_consumer(consumer)
                give_bare_records(consumer)
                fetch_plainly(consumer)
                self._session = session = await open_session(consumer, self._topic, self._hub)
                self._see_what_is_gone(session)
                await session.activate(*session.watched())
            self._found(session)
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(unbroken(session.watch))
                tasks.create_task(unbroken(self._poll, consumer, session))
        finally:
            self._session = None
            self._hub.kafka_live = False
            await stop_consumer(consumer)

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

    async def _poll(self, consumer: Any, session: Session) -> None:
        linger = Linger(consumer, self._linger_seconds)
        while True:
            batches = await linger.poll()
            session.reached.update({where: records[-1].offset + 1 for where, records in batches.items()})
            self._take(chain.from_iterable(batches.values()))
            await asyncio.sleep(0)  # getmany does not wait while it has records; others want the loop too

    # ---- records

    def _take(self, records: Iterable[BareRecord]) -> None:
        """Sort out the records of a poll that are what they say they are, then hand on all that is new at once."""
        others: list[str] = []
        traces: list[str | None] = []
        times: list[bytes] = []
        room_of, take_record = self._hub.rooms_by_key.get, self._hub.take_record
        try:
            for record in records:
                room = room_of(record.key)
                if room is None:
                    continue
                checked = checked_event(record.value, record.headers, room)
                if isinstance(checked, str):
                    others.append(checked)
                    continue
                event, moment, trace = checked
                verdict = take_record(room, event)
                traces.append(trace)
                if verdict is Verdict.NEXT:
                    times.append(moment)
                else:
                    others.append(verdict)
        finally:  # what is taken counts as handed on, whatever else befalls
            if traces:
                self._hand_on(traces, times)
        if times:
            self._count_next(len(times))
        for verdict, count in Counter(others).items():
            self._telemetry.records.labels(verdict).inc(count)

    def _hand_on(self, traces: Sequence[str | None], times: Iterable[bytes]) -> None:
        """What the poll brought for those who watch here: the traces of all of it, and the times of what is new."""
        with recorded_span(self._telemetry.tracer, SPAN_POLL, SpanKind.CONSUMER) as span:
            span.set_attribute("messaging.batch.message_count", len(traces))
            self._hub.hand_on()
            self._telemetry.append_to_socket.add_all(seconds_since(times, time.time()))
            link_sampled(span, traces)

    # ---- mode

    def _found(self, session: Session) -> None:
        self._hub.kafka_live = True
        self._told_away = False
        self._telemetry.mode(live=True)
        self.settled.set()
        _log.info(LOG_KAFKA_LIVE, partitions=session.partitions)

    def _see_what_is_gone(self, session: Session) -> None:
        """A topic that was deleted and made again is shorter than it was: what nobody has read of it is nowhere on Kafka."""
        if any(end < self._reached.get(where, 0) for where, end in session.reached.items()):
            self._position_lost()
        for where, end in self._reached.items():  # of those without a leader, too
            session.reached.setdefault(where, end)
        self._reached = session.reached

    def _position_lost(self) -> None:
        self._reached = {}  # told once
        self._telemetry.position_lost.inc()
        _log.warning(LOG_KAFKA_POSITION_LOST)

    def _lost(self, error: Exception) -> None:
        """Tell it once per outage, not once per try."""
        self._telemetry.mode(live=False)
        self.settled.set()
        cause = _first(error)
        if isinstance(cause, OffsetOutOfRangeError):
            self._position_lost()
        elif not self._told_away:
            self._told_away = True
            _log.warning(LOG_KAFKA_AWAY, error=type(cause).__name__, exc_info=_unexpected(cause))


def _first(error: Exception) -> Exception:
    """What ended a session: of several tasks' errors, the first."""
    while isinstance(error, ExceptionGroup):
        error = cast("ExceptionGroup[Exception]", error).exceptions[0]
    return error


def _unexpected(error: Exception) -> Exception | None:
    return None if isinstance(error, KafkaError | KafkaAway | OSError | TimeoutError | BrokenOff) else error


def checked_event(
    value: bytes | None, headers: Sequence[tuple[str, bytes | None]], room: Room
) -> Checked | Literal["bad", "foreign"]:
    """The event that a record for this room's run carries, ready to send; or why it is none."""
    if value is None:
        return "bad"
    try:
        tenant_id, seq, event_type, moment, trace = room.records.read(value, headers)
    except BadRecord:
        return "bad"
    if tenant_id is not room.tenant_id and tenant_id != room.tenant_id:
        return "foreign"
    return Event(seq, event_type, event_frame(seq, value)), moment, trace
