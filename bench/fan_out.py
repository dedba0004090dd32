"""Records on Kafka become frames on sockets: what a delivery costs the gateway, against the floor: a C program that does
one `send` a delivery, as often and of as many bytes.

The records are produced here, so that Postgres and the publisher have no part in it; the tail check, which would miss
their rows, is left out (it costs a query a look, whatever comes from Kafka).
"""

import asyncio
import subprocess
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from math import ceil
from pathlib import Path
from typing import Any, Protocol, Self

from aiokafka import AIOKafkaProducer
from aiokafka.partitioner import murmur2
from append import EVENT_BYTES
from clocks import cpu_seconds, family, kernel_seconds, pss_bytes
from compiled import compiled
from crowd import Crowd
from rounds import Measured, Sample, Side, by_turns
from world import TOPIC, World

from juinie_shared.contracts.record import RunEventRecord, event_json_head
from juinie_shared.contracts.sse import event_frame
from juinie_shared.domain.ids import RunId, Seq
from juinie_shared.domain.times import format_time
from juinie_testkit.backing.docker import free_port
from juinie_testkit.kafka import create_topic
from juinie_testkit.raw_stream import stream_request

SETTINGS = {
    "JUINIE_TAIL_CHECK_SECONDS": "3600",
    "JUINIE_TAIL_POLL_SECONDS": "3600",
    "JUINIE_MAX_STREAMS": "20000",
}
IN_KERNEL = "µs of it in the kernel"
_TYPE = "TEXT_MESSAGE_CONTENT"
_DATA = b'"' + b"x" * (EVENT_BYTES - 2) + b'"'
_NOTED = b'"time":"'


@dataclass(frozen=True, slots=True)
class Shape:
    """`watchers` on each of `runs`. A round is `ticks` ticks, `tick_seconds` apart, of one event on each of `runs_a_tick` runs."""

    runs: int
    watchers: int
    ticks: int
    tick_seconds: float
    runs_a_tick: int

    @property
    def events(self) -> int:
        return self.ticks * self.runs_a_tick

    @property
    def events_a_run(self) -> int:
        return self.events // self.runs

    @property
    def deliveries(self) -> int:
        return self.events * self.watchers


class Sender(Protocol):
    """Brings events to a server in its own way."""

    @property
    def events_a_run(self) -> int:
        """What has been sent of every run, at least."""
        ...

    async def send(self, ticks: int, tick_seconds: float, runs_a_tick: int) -> None:
        """Events in steady ticks. A tick that is late is not made up for."""
        ...


def partition_of(run: RunId, partitions: int) -> int:
    """As Kafka's default partitioner has it."""
    return (murmur2(str(run).encode()) & 0x7FFFFFFF) % partitions


class Source:
    """Events of many runs, as the publisher would send them."""

    def __init__(self, world: World, runs: Sequence[RunId], topic: str = TOPIC) -> None:
        assert world.kafka is not None
        self._world, self._runs, self._topic = world, runs, topic
        self._partitions = [partition_of(run, world.partitions) for run in runs]
        self._last: list[int] = [0] * len(runs)
        self._next = 0
        self._producer: Any = AIOKafkaProducer(
            bootstrap_servers=world.kafka.bootstrap, acks=1, max_batch_size=512 * 1024
        )

    async def __aenter__(self) -> Self:
        await self._producer.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._producer.stop()

    @property
    def events_a_run(self) -> int:
        """What has been sent of every run, at least."""
        return min(self._last)

    async def send(self, ticks: int, tick_seconds: float, runs_a_tick: int) -> None:
        """Events in steady ticks. A tick that is late is not made up for."""
        for _ in range(ticks):
            began = time.perf_counter()
            await self._tick(runs_a_tick)
            await asyncio.sleep(max(0.0, began + tick_seconds - time.perf_counter()))

    async def _tick(self, count: int) -> None:
        now = format_time(datetime.now(UTC))
        batches = [self._producer.create_batch() for _ in range(self._world.partitions)]
        for _ in range(count):
            place = self._next
            self._next = (self._next + 1) % len(self._runs)
            self._last[place] += 1
            record = self._record(self._runs[place], self._last[place], now)
            batches[self._partitions[place]].append(
                key=record.key, value=record.value, timestamp=None, headers=record.headers()
            )
        sending = [
            await self._producer.send_batch(batch, self._topic, partition=partition)
            for partition, batch in enumerate(batches)
            if batch.record_count()
        ]
        await asyncio.gather(*sending)

    def _record(self, run_id: RunId, seq: int, now: str) -> RunEventRecord:
        trace = (
            f"00-{run_id.hex}-{seq:016x}-{'01' if seq % 100 == 0 else '00'}"  # one in a hundred is sampled
        )
        return RunEventRecord(
            run_id, self._world.key.tenant_id, Seq(seq), _TYPE, now, event_json(seq, now), trace
        )


def event_json(seq: int, now: str) -> bytes:
    """As the publisher would write it."""
    return event_json_head(seq, _TYPE) + now.encode() + b'","data":' + _DATA + b"}"


class Latencies:
    """From an event's time to its frame's arrival: seconds, of the first event in each piece that comes."""

    def __init__(self) -> None:
        self.seconds: list[float] = []

    def note(self, data: bytes) -> None:
        at = data.find(_NOTED)
        if at >= 0:
            moment = datetime.fromisoformat(data[at + len(_NOTED) : at + len(_NOTED) + 27].decode())
            self.seconds.append(time.time() - moment.timestamp())

    def take(self) -> Sequence[float]:
        taken, self.seconds = self.seconds, []
        return taken


class Floor:
    """The C program, compiled here.

    Raises:
        NotCompiled
    """

    def __init__(self, directory: Path) -> None:
        program = compiled("floors/fan_out.c", directory)
        self.port = free_port()
        self._process = subprocess.Popen(
            [program, str(self.port)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        self._line()

    @property
    def pid(self) -> int:
        return self._process.pid

    async def send(self, events: int, seconds: float, frame_bytes: int, at_once: int) -> None:
        """So many events to every connection, each to `at_once` of them and, so many seconds later, to the next ones."""
        assert self._process.stdin is not None
        self._process.stdin.write(f"{events} {int(seconds * 1e6)} {frame_bytes} {at_once}\n")
        self._process.stdin.flush()
        await asyncio.to_thread(self._line)

    def _line(self) -> None:
        assert self._process.stdout is not None
        assert self._process.stdout.readline(), "The floor's program has ended."

    def end(self) -> None:
        self._process.kill()
        self._process.wait()


async def measure(
    world: World,
    shape: Shape,
    rounds: int,
    told: Callable[[str], None],
    processes: int = 1,
    lingers: Sequence[float] = (0.0,),
) -> Measured:
    """By turns: Juinie, of so many processes, with each linger (seconds that Kafka gathers), again with the first of them,
    and the floor. A unit is a delivery.
    """
    runs = [RunId(run) for run in await world.runs(shape.runs)]
    facts = dict[str, float]()
    async with AsyncExitStack() as open_ones:
        sides = list[Side]()
        for linger in lingers:
            name = f"linger {linger:g} s" if linger else "juinie"
            topic = await _topic(world, len(sides))
            settings = SETTINGS | {
                "JUINIE_PROCESSES": str(processes),
                "JUINIE_STREAM_LINGER_SECONDS": str(linger),
                "JUINIE_KAFKA_TOPIC": topic,
            }
            side, pss = await open_ones.enter_async_context(
                juinie(world, name, runs, shape, settings, told, topic)
            )
            facts[f"pss_bytes_a_watcher, {name}"] = pss
            sides.append(side)
        sides.append(replace(sides[0], name="again"))
        sides.append(await open_ones.enter_async_context(floor(world, shape)))
        measured = await by_turns("delivery", sides, rounds, told)
    return replace(measured, facts=facts)


async def _topic(world: World, number: int) -> str:
    """One for each gateway, so that none reads what is sent for another."""
    if not number:
        return TOPIC
    assert world.kafka is not None
    topic = f"{TOPIC}.{number}"
    await create_topic(world.kafka.bootstrap, topic, world.partitions)
    return topic


@asynccontextmanager
async def juinie(
    world: World,
    name: str,
    runs: Sequence[RunId],
    shape: Shape,
    settings: Mapping[str, str],
    told: Callable[[str], None],
    topic: str = TOPIC,
    stored: int = 0,
) -> AsyncGenerator[tuple[Side, float]]:
    """A gateway with its watchers, and the bytes that one of them holds when it rests. `stored`: so many events each run has already."""
    gateway = await world.service("juinie_stream_gateway", "JUINIE_STREAM_PORT", settings)
    pid, latencies = gateway.pid or 0, Latencies()
    requests = [stream_request(run, world.key.text, 0) for run in runs for _ in range(shape.watchers)]
    crowd = Crowd(gateway.port, requests, latencies.note)
    empty = memory(pid)
    seconds = await crowd.come()
    await crowd.until(stored)
    pss = (memory(pid) - empty) / len(crowd)
    used = cpu_seconds(family(pid))
    told(
        f"{name}: {len(crowd)} watchers came in {seconds:.1f} s; {pss:.0f} bytes of PSS each, {used:.2f} s of CPU since its start"
    )
    try:
        async with Source(world, runs, topic) as source:
            yield Side(name, delivering(pid, source, crowd, shape, latencies)), pss
    except AssertionError:
        told(gateway.tail())
        raise
    finally:
        await crowd.leave()


@asynccontextmanager
async def floor(world: World, shape: Shape) -> AsyncGenerator[Side]:
    """The C program with as many watchers."""
    program = Floor(world.directory)
    try:
        crowd = Crowd(program.port, [b"GET / HTTP/1.1\r\n\r\n"] * (shape.runs * shape.watchers))
        await crowd.come()
        yield Side("floor", sending(program, crowd, shape))
        await crowd.leave()
    finally:
        program.end()


def memory(pid: int) -> int:
    """Bytes that a server holds, with all its processes."""
    return sum(map(pss_bytes, family(pid)))


def delivering(
    pid: int, source: Sender, crowd: Crowd, shape: Shape, latencies: Latencies
) -> Callable[[], Awaitable[Sample]]:
    """A turn: the load is sent, and had by all."""

    async def turn() -> Sample:
        pids = family(pid)
        latencies.take()
        before, kernel, began = cpu_seconds(pids), kernel_seconds(pids), time.perf_counter()
        await source.send(shape.ticks, shape.tick_seconds, shape.runs_a_tick)
        await crowd.until(source.events_a_run)
        used, counters = cpu_seconds(pids) - before, {IN_KERNEL: (kernel_seconds(pids) - kernel) * 1e6}
        took = time.perf_counter() - began
        return Sample(shape.deliveries, took, {"service": used}, latencies.take(), counters)

    return turn


def sending(floor: Floor, crowd: Crowd, shape: Shape) -> Callable[[], Awaitable[Sample]]:
    """As many deliveries in as many seconds, as many of them together. Where there are many runs, its events go to all, in their turns."""
    now = format_time(datetime.now(UTC))
    frame_bytes = len(event_frame(1000, event_json(1000, now)))
    events = shape.events_a_run
    at_once = min(shape.runs_a_tick * shape.watchers, shape.runs * shape.watchers)
    pieces = ceil(shape.runs * shape.watchers / at_once)
    seconds = shape.ticks * shape.tick_seconds / events / pieces
    sent: list[int] = []

    async def turn() -> Sample:
        pids = [floor.pid]
        before, kernel, began = cpu_seconds(pids), kernel_seconds(pids), time.perf_counter()
        await floor.send(events, seconds, frame_bytes, at_once)
        sent.append(events)
        await crowd.until(sum(sent))
        used, counters = cpu_seconds(pids) - before, {IN_KERNEL: (kernel_seconds(pids) - kernel) * 1e6}
        return Sample(shape.deliveries, time.perf_counter() - began, {"service": used}, (), counters)

    return turn
