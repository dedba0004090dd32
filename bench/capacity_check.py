"""The formulas of `capacity.py` against small real runs of the whole of Juinie: what was foretold, what it was, and their ratio."""

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median
from typing import Self

from append import Shape, body_of
from capacity import AT_REST_BYTES, COSTS, Costs, Load, need
from clocks import bytes_read, cpu_seconds, family, pss_bytes
from crowd import Crowd
from fan_out import partition_of
from http_load import post, send_all
from stored import store
from world import PARTITIONS, TOPIC, World

from juinie_shared.domain.ids import RunId
from juinie_testkit.raw_stream import stream_request
from juinie_testkit.stack import ServiceProcess

APPENDS, CONNECTIONS = 3_000, 16
REST_SECONDS = 10.0


@dataclass(frozen=True, slots=True)
class Case:
    """A load, for so many gateways of so many processes. Its rate is what comes out. Where it is routed, several gateways get each the
    watchers of its partitions, as a balancer would do it; several processes of one share them out themselves.
    """

    load: Load
    gateways: int = 1
    processes: int = 1
    partitions: int = PARTITIONS


_TENS = Load(200, 0, 10, 1)
AT_REST = "at rest"
CORES = "cores of "
MOST_DEARER, MOST_CHEAPER = 1.5, 2.5
"""What may be off: a load takes at most so much more than was foretold. Where it takes less, somebody has paid for cores that rest."""
FROM_KAFKA, MOST_READ = "bytes from Kafka a second", 2.0
"""What a gateway reads from Postgres for watchers that fell behind cannot be told from what came from Kafka: so much more it may be."""
CASES: Mapping[str, Case] = {
    AT_REST: Case(Load(1_000, 0, 1, 1)),
    "one event an append": Case(Load(200, 0, 1, 1)),
    "ten events an append": Case(Load(200, 0, 10, 2)),
    "ten events an append, many watchers": Case(Load(10, 0, 10, 50)),
    "ten events an append, two gateways": Case(_TENS, gateways=2),
    "ten events an append, two gateways, routed": Case(replace(_TENS, routed=True), gateways=2),
    "ten events an append, two processes of one gateway": Case(replace(_TENS, routed=True), processes=2),
    "a hundred watchers of each run": Case(Load(100, 0, 10, 100)),
    "four processes of one gateway": Case(Load(500, 0, 10, 2, routed=True), processes=4, partitions=12),
}
"""The costs were fitted to all but the last two."""


async def check(told: Callable[[str], None]) -> list[str]:
    """Each case once, with a whole Juinie of its own. Gives what was not as it was foretold."""
    seen = dict[str, Seen]()
    for name, case in CASES.items():
        told(f"{name} ...")
        seen[name] = await _seen(case, at_rest=name == AT_REST)
    pace = pace_of(_ratios(seen, COSTS))
    told(f"a core of this machine takes {pace:.2f} of what the costs are of")
    costs = replace(COSTS, round_seconds=COSTS.round_seconds * pace)
    for name, one in seen.items():
        told(f"{name}:")
        for what, foretold in one.foretold(costs).items():
            was = one.was[what]
            told(f"  {what:32} foretold {foretold:12.4g}  was {was:12.4g}  {was / foretold:6.2f}")
    return wrong(_ratios(seen, costs), pace)


def _ratios(seen: Mapping[str, "Seen"], costs: Costs) -> dict[tuple[str, str], float]:
    """What was in proportion to what was foretold, by case and what."""
    return {
        (name, what): one.was[what] / foretold
        for name, one in seen.items()
        for what, foretold in one.foretold(costs).items()
    }


def pace_of(ratios: Mapping[tuple[str, str], float]) -> float:
    """What cores take here in proportion to those that the costs were measured on, which says nothing of the formulas."""
    return median(ratio for (_, what), ratio in ratios.items() if what.startswith(CORES))


def wrong(ratios: Mapping[tuple[str, str], float], pace: float) -> list[str]:
    """What was more off than may be, of cores beside this machine's own pace. By case and what, in proportion to what was foretold."""
    off = {
        (name, what): ratio / (pace if what.startswith(CORES) else 1.0)
        for (name, what), ratio in ratios.items()
    }
    most = {FROM_KAFKA: MOST_READ}
    return [
        f"{name}: {what}"
        for (name, what), ratio in off.items()
        if not 1 / MOST_CHEAPER <= ratio <= most.get(what, MOST_DEARER)
    ]


async def _seen(case: Case, *, at_rest: bool) -> "Seen":
    load = case.load
    async with World(with_kafka=True, partitions=case.partitions) as world:
        runs = await store(world, load.active_runs, 0)
        stack = await _Stack.start(world, case)
        crowds = [
            Crowd(gateway.port, [stream_request(run, world.key.text, 0) for run in own] * int(load.watchers))
            for gateway, own in zip(stack.gateways, shared_out(runs, case, world.partitions), strict=True)
        ]
        for crowd in crowds:
            await crowd.come()
        await world.quiet()
        before, began = await stack.counts(), time.perf_counter()
        appends = 0 if at_rest else await _appended(world, stack.api, runs, load, crowds)
        if at_rest:
            await asyncio.sleep(REST_SECONDS)
        seconds = time.perf_counter() - began
        after, held = await stack.counts(), stack.memory()
        for crowd in crowds:
            await crowd.leave()
    was = {what: (after[what] - before[what]) / seconds for what in after} | held
    events_a_second = appends * load.events_an_append / seconds / load.active_runs
    return Seen(replace(load, events_a_second=events_a_second), case.gateways * case.processes, was)


def shared_out(runs: Sequence[RunId], case: Case, partitions: int) -> list[list[RunId]]:
    """Whose watchers each gateway gets: by their partitions where it is routed, else by turns."""
    shares: list[list[RunId]] = [[] for _ in range(case.gateways)]
    for number, run in enumerate(runs):
        place = partition_of(run, partitions) if case.load.routed else number
        shares[place % case.gateways].append(run)
    return shares


async def _appended(
    world: World, api: ServiceProcess, runs: Sequence[RunId], load: Load, crowds: Sequence[Crowd]
) -> int:
    """Appends to all runs alike, until all have what was appended. Gives how many."""
    body = body_of(Shape(load.events_an_append, 1))
    requests = [post(f"/v1/runs/{run}/events", world.key.text, body) for run in runs]
    appends = APPENDS // len(runs) * len(runs)
    await send_all(api.port, lambda n: requests[n % len(requests)], appends, CONNECTIONS)
    for crowd in crowds:
        await crowd.until(appends // len(runs) * load.events_an_append)
    return appends


@dataclass(frozen=True, slots=True)
class Seen:
    """A case with its rate, and what it took."""

    load: Load
    gateways: int
    was: Mapping[str, float]

    def foretold(self, costs: Costs) -> dict[str, float]:
        """Whatever it would take, there is one process of the api and one of the publisher. What is nothing is left out."""
        n = need(self.load, self.gateways, costs)
        held = n.memory_bytes | {part: AT_REST_BYTES[part] for part in ("api", "publisher")}
        foretold = {
            **{f"{CORES}{part}": cores for part, cores in n.cores.items()},
            **{f"memory of {part}": count for part, count in held.items()},
            "bytes of WAL a second": n.wal_bytes,
            "bytes to Kafka a second": n.kafka_in_bytes,
            FROM_KAFKA: n.kafka_out_bytes,
        }
        return {what: value for what, value in foretold.items() if value}


@dataclass(frozen=True, slots=True)
class _Stack:
    """The processes of a case."""

    world: World
    api: ServiceProcess
    publisher: ServiceProcess
    gateways: Sequence[ServiceProcess]

    @classmethod
    async def start(cls, world: World, case: Case) -> Self:
        api = await world.service("juinie_api", "JUINIE_API_PORT")
        publisher = await world.service("juinie_publisher", "JUINIE_PUBLISHER_PORT")
        settings = {"JUINIE_PROCESSES": str(case.processes), "JUINIE_MAX_STREAMS": "20000"}
        gateways = [
            await world.service("juinie_stream_gateway", "JUINIE_STREAM_PORT", settings)
            for _ in range(case.gateways)
        ]
        return cls(world, api, publisher, gateways)

    async def counts(self) -> dict[str, float]:
        """What only grows, by the names of what is foretold of a second of it."""
        pids = self._pids()
        return {
            **{f"{CORES}{part}": cpu_seconds(some) for part, some in pids.items()},
            f"{CORES}postgres": self.world.database_cpu(),
            "bytes of WAL a second": await self.world.wal_bytes(),
            "bytes to Kafka a second": _on_disk(self.world.directory / "kafka"),
            FROM_KAFKA: sum(map(bytes_read, pids["gateway"])),
        }

    def memory(self) -> dict[str, float]:
        """Bytes of PSS that each service holds."""
        return {f"memory of {part}": sum(map(pss_bytes, some)) for part, some in self._pids().items()}

    def _pids(self) -> dict[str, list[int]]:
        parts = {"api": [self.api], "publisher": [self.publisher], "gateway": self.gateways}
        return {
            part: [pid for service in services for pid in family(service.pid or 0)]
            for part, services in parts.items()
        }


def _on_disk(directory: Path) -> int:
    """Bytes of the topic's records."""
    return sum(log.stat().st_size for log in directory.rglob(f"{TOPIC}-*/*.log"))
