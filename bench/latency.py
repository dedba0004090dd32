"""From an append to its watchers' sockets, through the whole of Juinie: api, Postgres, publisher, Kafka, gateway; beside the floor, one
process that does the same and nothing else (`floors/whole.py`).

Seconds begin when an append is due, and end when the watcher's process has read its frame, on one machine and by one clock. The
load and the watchers are one process, which shares the machine with what it measures.
"""

import asyncio
import json
import os
import re
import sys
import time
from collections.abc import AsyncGenerator, Callable, Coroutine, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path as File
from typing import Any, Protocol, Self

from append import EVENT_BYTES
from clocks import cpu_seconds, family
from crowd import Crowd
from http_load import post
from open_load import OpenLoad
from rounds import Measured, Sample, Side, by_turns, quantile
from stored import store
from world import TOPIC, World

from juinie_shared.domain.ids import RunId
from juinie_testkit.backing.docker import free_port
from juinie_testkit.kafka import create_topic
from juinie_testkit.raw_stream import stream_request
from juinie_testkit.stack import ServiceProcess

RUNS = 100
_MODULES = {
    "api": ("juinie_api", "JUINIE_API_PORT"),
    "publisher": ("juinie_publisher", "JUINIE_PUBLISHER_PORT"),
    "gateway": ("juinie_stream_gateway", "JUINIE_STREAM_PORT"),
}
_SENT_AT = re.compile(rb'"at":"(\d{20})"')
_FILL = "x" * (EVENT_BYTES - len('{"at":"","x":""}') - 20)

type Told = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Wanted:
    rounds: int
    seconds: float


@dataclass(frozen=True, slots=True)
class Pace:
    """`appends` a second, of so many events each, from so many clients."""

    appends: float
    events: int
    clients: int


PACES: Mapping[str, Pace] = {
    "idle": Pace(20, 1, 4),
    "2,000 a second": Pace(2_000, 1, 64),
    "2,000 a second in tens": Pace(200, 10, 64),
}


class Served(Protocol):
    """Where appends are taken and watched, and what that uses up: seconds by part, since it began."""

    @property
    def append_port(self) -> int: ...
    @property
    def stream_port(self) -> int: ...
    def cpu(self) -> dict[str, float]: ...


@dataclass(frozen=True, slots=True)
class Services:
    """One of each, in one world."""

    by_name: Mapping[str, ServiceProcess]

    @classmethod
    async def start(
        cls, world: World, settings: Mapping[str, str] | None = None, *, through: str | None = None
    ) -> Self:
        """`settings` are for all three. `through`: a module that runs the one that `BENCH_MODULE` names."""
        started = dict[str, ServiceProcess]()
        for name, (module, port) in _MODULES.items():
            own = {**(settings or {}), "BENCH_MODULE": module}
            started[name] = await world.service(through or module, port, own)
        return cls(started)

    @property
    def append_port(self) -> int:
        return self.by_name["api"].port

    @property
    def stream_port(self) -> int:
        return self.by_name["gateway"].port

    def cpu(self) -> dict[str, float]:
        """Seconds of each, by name, since it began."""
        return {name: cpu_seconds(family(service.pid or 0)) for name, service in self.by_name.items()}


@dataclass(frozen=True, slots=True)
class Floor:
    """The program in place of all three."""

    append_port: int
    stream_port: int
    pid: int

    @classmethod
    @asynccontextmanager
    async def open(cls, world: World) -> AsyncGenerator[Self]:
        assert world.kafka is not None
        port, topic = free_port(), f"{TOPIC}.floor"
        await create_topic(world.kafka.bootstrap, topic, world.partitions)
        settings = {
            "database_url": world.postgres.url, "kafka": world.kafka.bootstrap, "topic": topic, "port": port,
        }  # fmt: skip
        program = await asyncio.create_subprocess_exec(
            sys.executable,
            File(__file__).parent / "floors/whole.py",
            env=os.environ | {"FLOOR_SETTINGS": json.dumps(settings)},
            stdout=asyncio.subprocess.PIPE,
        )
        try:
            assert program.stdout is not None
            assert await program.stdout.readline(), "The floor's program has ended."
            yield cls(port, port, program.pid)
        finally:
            program.kill()
            await program.wait()

    def cpu(self) -> dict[str, float]:
        return {"service": cpu_seconds([self.pid])}


def append_request(run: RunId, key: str, events: int, due: float) -> bytes:
    """Of events that carry when they were due, by `time.perf_counter()`."""
    event = f'{{"type":"TEXT_MESSAGE_CONTENT","data":{{"at":"{int(due * 1e9):020}","x":"{_FILL}"}}}}'
    return post(f"/v1/runs/{run}/events", key, f'{{"events":[{",".join([event] * events)}]}}'.encode())


def arrived_in(data: bytes) -> list[float]:
    """Seconds since their events were due, of the frames that came just now."""
    now = time.perf_counter_ns()
    return [(now - int(sent)) / 1e9 for sent in _SENT_AT.findall(data)]


class Path:
    """The whole of Juinie, or what stands in its place, and runs with one watcher each."""

    def __init__(self, world: World, served: Served, runs: Sequence[RunId]) -> None:
        self._served = served
        self._world, self._runs = world, runs
        self._arrived: list[float] = []
        self._events = 1
        self._given = 0
        self._load = OpenLoad(served.append_port, self._append)
        requests = [stream_request(run, world.key.text, 0) for run in runs]
        self._crowd = Crowd(served.stream_port, requests, self._note, every=1)

    @classmethod
    @asynccontextmanager
    async def open(cls, world: World, served: Served) -> AsyncGenerator[Self]:
        path = cls(world, served, await store(world, RUNS, 0))
        await path._crowd.come()
        yield path
        await path._crowd.leave()

    async def carry(self, pace: Pace, seconds: float) -> tuple[Sample, Sequence[float]]:
        """Appends for so long, and until all have what was appended. A unit is an event. With the seconds of the appends themselves."""
        appends = max(RUNS, round(pace.appends * seconds) // RUNS * RUNS)
        self._events = pace.events
        self._given += appends // RUNS * pace.events
        self._arrived.clear()
        cpu, began = self._cpu(), time.perf_counter()
        latencies = await self._load.send(appends, pace.appends, pace.clients)
        await self._crowd.until(self._given)
        used = {part: now - cpu[part] for part, now in self._cpu().items()}
        took = time.perf_counter() - began
        return Sample(appends * pace.events, took, used, list(self._arrived)), latencies

    def _append(self, number: int, due: float) -> bytes:
        return append_request(self._runs[number % RUNS], self._world.key.text, self._events, due)

    def _note(self, data: bytes) -> None:
        self._arrived += arrived_in(data)

    def _cpu(self) -> dict[str, float]:
        return {**self._served.cpu(), "postgres": self._world.database_cpu()}


async def paces(wanted: Wanted, told: Told) -> Measured:
    """Little to do, and 2,000 events a second, one by one and in tens."""
    appends = dict[str, list[float]]()

    def side(path: Path, name: str, pace: Pace) -> Side:
        async def turn() -> Sample:
            sample, latencies = await path.carry(pace, wanted.seconds)
            appends.setdefault(name, []).extend(latencies)
            return sample

        return Side(name, turn)

    async with (
        World(with_kafka=True) as world,
        Path.open(world, await Services.start(world)) as path,
        Floor.open(world) as floor,
        Path.open(world, floor) as least,
    ):
        sides = [side(path, *each) for each in PACES.items()]
        sides.append(side(path, "again", PACES["idle"]))
        sides += [side(least, f"floor, {name}", pace) for name, pace in PACES.items()]
        measured = await by_turns("event", sides, wanted.rounds, told)
    facts = {
        f"{name}: append {part} ms": quantile(values, share) * 1e3
        for name, values in appends.items()
        for part, share in (("p50", 0.5), ("p99", 0.99))
    }
    return replace(measured, facts=facts)


CASES: Mapping[str, Callable[[Wanted, Told], Coroutine[Any, Any, Measured]]] = {"paces": paces}
