"""From an append to its watchers' sockets, through the whole of Juinie: api, Postgres, publisher, Kafka, gateway.

Seconds begin when an append is due, and end when the watcher's process has read its frame, on one machine and by one clock. The
load and the watchers are one process, which shares the machine with what it measures.
"""

import re
import time
from collections.abc import AsyncGenerator, Callable, Coroutine, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from typing import Any, Self

from append import EVENT_BYTES
from clocks import cpu_seconds, family
from crowd import Crowd
from http_load import post
from open_load import OpenLoad
from rounds import Measured, Sample, Side, by_turns, quantile
from stored import store
from world import World

from juinie_shared.domain.ids import RunId
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

    def cpu(self) -> dict[str, float]:
        """Seconds of each, by name, since it began."""
        return {name: cpu_seconds(family(service.pid or 0)) for name, service in self.by_name.items()}


def append_request(run: RunId, key: str, events: int, due: float) -> bytes:
    """Of events that carry when they were due, by `time.perf_counter()`."""
    event = f'{{"type":"TEXT_MESSAGE_CONTENT","data":{{"at":"{int(due * 1e9):020}","x":"{_FILL}"}}}}'
    return post(f"/v1/runs/{run}/events", key, f'{{"events":[{",".join([event] * events)}]}}'.encode())


def arrived_in(data: bytes) -> list[float]:
    """Seconds since their events were due, of the frames that came just now."""
    now = time.perf_counter_ns()
    return [(now - int(sent)) / 1e9 for sent in _SENT_AT.findall(data)]


class Path:
    """The whole of Juinie, and runs with one watcher each."""

    def __init__(self, world: World, services: Services, runs: Sequence[RunId]) -> None:
        self.services = services
        self._world, self._runs = world, runs
        self._arrived: list[float] = []
        self._events = 1
        self._given = 0
        self._load = OpenLoad(services.by_name["api"].port, self._append)
        requests = [stream_request(run, world.key.text, 0) for run in runs]
        self._crowd = Crowd(services.by_name["gateway"].port, requests, self._note, every=1)

    @classmethod
    @asynccontextmanager
    async def open(cls, world: World, services: Services | None = None) -> AsyncGenerator["Path"]:
        runs = await store(world, RUNS, 0)
        path = cls(world, services or await Services.start(world), runs)
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
        return {**self.services.cpu(), "postgres": self._world.database_cpu()}


async def paces(wanted: Wanted, told: Told) -> Measured:
    """Little to do, and 2,000 events a second, one by one and in tens."""
    appends = dict[str, list[float]]()

    def side(path: Path, name: str, pace: Pace) -> Side:
        async def turn() -> Sample:
            sample, latencies = await path.carry(pace, wanted.seconds)
            appends.setdefault(name, []).extend(latencies)
            return sample

        return Side(name, turn)

    async with World(with_kafka=True) as world, Path.open(world) as path:
        sides = [side(path, *each) for each in PACES.items()]
        sides.append(side(path, "again", PACES["idle"]))
        measured = await by_turns("event", sides, wanted.rounds, told)
    facts = {
        f"{name}: append {part} ms": quantile(values, share) * 1e3
        for name, values in appends.items()
        for part, share in (("p50", 0.5), ("p99", 0.99))
    }
    return replace(measured, facts=facts)


CASES: Mapping[str, Callable[[Wanted, Told], Coroutine[Any, Any, Measured]]] = {"paces": paces}
