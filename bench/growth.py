"""What an event and a watcher cost when there is more of everything: flat, or it is told.

Each case has its sizes side by side, by turns, the smallest first and once again at the end.
"""

import time
from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from append import RUNS, Shape, over_http
from clocks import cpu_seconds, family
from crowd import Crowd
from fan_out import SETTINGS, juinie
from fan_out import Shape as Load
from relay import relayed
from rounds import Measured, Sample, Side, by_turns
from stored import store
from world import World

from juinie_shared.domain.ids import RunId
from juinie_testkit.raw_stream import stream_request
from juinie_testkit.stack import ServiceProcess

APPENDS = 3_000
RELAYED, WARM_RELAY = 10_000, 1_000
SPREADS, BATCHES, CROWDS = (1, 100, 10_000), (1, 10, 100), (100, 1_000, 10_000)
PROCESSES = (1, 2, 4)
PARTITIONS = 12
"""As Juinie makes them where nobody says otherwise: each process reads its share."""
EVENTS_A_STORED_RUN = 1_000
COME, EVENTS_TO_COME_TO, MISSED = 1_000, 200, 50
STORED = 2
"""Events of each run that is watched."""
DELIVERIES, DELIVERIES_A_SECOND, RECORDS_A_SECOND = 20_000, 20_000, 4_000
_TICK_SECONDS = 0.01

type Told = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Wanted:
    """How much, how often: `stored` are numbers of events, `most` a limit for what runs and watchers are tried with."""

    rounds: int
    stored: Sequence[int]
    most: int

    def up_to(self, sizes: Sequence[int]) -> list[int]:
        return [size for size in sizes if size <= self.most]


async def _where_more_is_stored(
    wanted: Wanted,
    told: Told,
    unit: str,
    side: Callable[[World], Awaitable[Callable[[], Awaitable[Sample]]]],
    *,
    with_kafka: bool = False,
) -> Measured:
    """`side` is given a world in which so many events are stored, of runs that have ended: each has a Postgres of its own."""
    async with AsyncExitStack() as worlds:
        sides = list[Side]()
        for events in wanted.stored:
            world = await worlds.enter_async_context(World(with_kafka=with_kafka))
            await store(world, events // EVENTS_A_STORED_RUN, EVENTS_A_STORED_RUN, running=False)
            told(f"{events:,} events are stored")
            sides.append(Side(f"{events:,} stored", await side(world)))
        return await by_turns(unit, _first_again(sides), wanted.rounds, told)


def _first_again(sides: list[Side]) -> list[Side]:
    return [*sides, Side("again", sides[0].turn)]


# ---- appends -----------------------------------------------------------------------------------------------------------


async def stored(wanted: Wanted, told: Told) -> Measured:
    """Appends of one event to runs that are new, where so many events are stored already."""

    async def side(world: World) -> Callable[[], Awaitable[Sample]]:
        runs = await store(world, RUNS, 0)
        api = await world.service("juinie_api", "JUINIE_API_PORT")
        return partial(over_http, world, api, runs, Shape(1, APPENDS))

    return await _where_more_is_stored(wanted, told, "event", side)


async def spread(wanted: Wanted, told: Told) -> Measured:
    """Appends of one event, over few runs and over many."""
    async with World() as world:
        api = await world.service("juinie_api", "JUINIE_API_PORT")
        sides = list[Side]()
        for count in wanted.up_to(SPREADS):
            runs = await store(world, count, 0)
            sides.append(Side(f"{count:,} runs", partial(over_http, world, api, runs, Shape(1, APPENDS))))
        return await by_turns("event", _first_again(sides), wanted.rounds, told)


async def batches(wanted: Wanted, told: Told) -> Measured:
    """Small appends and large ones: as many events, or a tenth of the appends where that is more."""
    async with World() as world:
        api = await world.service("juinie_api", "JUINIE_API_PORT")
        runs = await store(world, RUNS, 0)
        sides = [
            Side(
                f"{events} an append",
                partial(over_http, world, api, runs, Shape(events, max(APPENDS // events, APPENDS // 10))),
            )
            for events in BATCHES
        ]
        return await by_turns("event", _first_again(sides), wanted.rounds, told)


async def api_processes(wanted: Wanted, told: Told) -> Measured:
    """Appends of one event, to one process of the api and to several that share its port."""
    async with World() as world:
        runs = await store(world, RUNS, 0)
        sides = list[Side]()
        for count in PROCESSES:
            api = await world.service("juinie_api", "JUINIE_API_PORT", {"JUINIE_PROCESSES": str(count)})
            sides.append(Side(f"{count} processes", partial(over_http, world, api, runs, Shape(1, APPENDS))))
        return await by_turns("event", _first_again(sides), wanted.rounds, told)


# ---- the relay ---------------------------------------------------------------------------------------------------------


async def stored_relayed(wanted: Wanted, told: Told) -> Measured:
    """Outbox rows of one event each, where so many events are stored already."""

    async def side(world: World) -> Callable[[], Awaitable[Sample]]:
        runs = await store(world, RUNS, 0)
        publisher = await world.service("juinie_publisher", "JUINIE_PUBLISHER_PORT")
        return partial(relayed, world, publisher, runs, Shape(1, RELAYED))

    return await _where_more_is_stored(wanted, told, "event", side, with_kafka=True)


async def publisher_processes(wanted: Wanted, told: Told) -> Measured:
    """Outbox rows of one event each, relayed by one process and by several that share the shards: one at a time is there."""
    async with World(with_kafka=True) as world:
        runs = await world.runs(RUNS)

        def side(count: int) -> Side:
            async def turn() -> Sample:
                publisher = await world.service(
                    "juinie_publisher", "JUINIE_PUBLISHER_PORT", {"JUINIE_PROCESSES": str(count)}
                )
                await relayed(world, publisher, runs, Shape(1, WARM_RELAY))
                sample = await relayed(world, publisher, runs, Shape(1, RELAYED))
                await publisher.stop()
                return sample

            return Side(f"{count} processes", turn)

        sides = _first_again([side(count) for count in PROCESSES])
        return await by_turns("event", sides, wanted.rounds, told)


# ---- watchers ----------------------------------------------------------------------------------------------------------


async def stored_watched(wanted: Wanted, told: Told) -> Measured:
    """Watchers that come, each to a run of its own of which they miss the last events, where so many are stored already."""

    async def side(world: World) -> Callable[[], Awaitable[Sample]]:
        runs = await store(world, COME, EVENTS_TO_COME_TO)
        gateway = await world.service("juinie_stream_gateway", "JUINIE_STREAM_PORT", SETTINGS)
        return partial(_came, world, gateway, runs)

    return await _where_more_is_stored(wanted, told, "watcher", side, with_kafka=True)


async def _came(world: World, gateway: ServiceProcess, runs: Sequence[RunId]) -> Sample:
    """They come, have what they missed, and leave, which is not counted."""
    pids, after = family(gateway.pid or 0), EVENTS_TO_COME_TO - MISSED
    crowd = Crowd(gateway.port, [stream_request(run, world.key.text, after) for run in runs])
    await world.quiet()
    before, database, began = cpu_seconds(pids), world.database_cpu(), time.perf_counter()
    await crowd.come()
    await crowd.until(EVENTS_TO_COME_TO)
    seconds = time.perf_counter() - began
    cpu = {"service": cpu_seconds(pids) - before, "postgres": world.database_cpu() - database}
    await crowd.leave()
    return Sample(len(runs), seconds, cpu)


async def watchers(wanted: Wanted, told: Told) -> Measured:
    """One run with so many watchers, as many deliveries a second of all."""

    def load(count: int) -> Load:
        return Load(1, count, max(2, DELIVERIES // count), count / DELIVERIES_A_SECOND, 1)

    return await _gateways(wanted, told, "watchers", load)


async def watched_runs(wanted: Wanted, told: Told) -> Measured:
    """So many runs with one watcher each, as many events a second of all."""
    at_once = int(RECORDS_A_SECOND * _TICK_SECONDS)

    def load(count: int) -> Load:
        return Load(count, 1, DELIVERIES // 2 // at_once, _TICK_SECONDS, at_once)

    return await _gateways(wanted, told, "runs", load)


async def gateway_processes(wanted: Wanted, told: Told) -> Measured:
    """The same, 1,000 of them, at one process of the gateway and at several that share its port."""
    at_once = int(RECORDS_A_SECOND * _TICK_SECONDS)
    load = Load(1_000, 1, DELIVERIES // 2 // at_once, _TICK_SECONDS, at_once)
    gateways = {f"{count} processes": (load, count) for count in PROCESSES}
    return await _by_gateways(wanted, told, gateways)


async def _gateways(wanted: Wanted, told: Told, what: str, load_of: Callable[[int], Load]) -> Measured:
    gateways = {f"{count:,} {what}": (load_of(count), 1) for count in wanted.up_to(CROWDS)}
    return await _by_gateways(wanted, told, gateways)


async def _by_gateways(wanted: Wanted, told: Told, gateways: Mapping[str, tuple[Load, int]]) -> Measured:
    """Each has a gateway of its own, of so many processes. What a watcher at rest holds is told beside."""
    facts: dict[str, float] = {}
    async with World(with_kafka=True, partitions=PARTITIONS) as world, AsyncExitStack() as open_ones:
        sides = list[Side]()
        for name, (load, count) in gateways.items():
            runs: Sequence[RunId] = await store(world, load.runs, STORED)
            settings = SETTINGS | {"JUINIE_PROCESSES": str(count)}
            way = juinie(world, name, runs, load, settings, told, stored=STORED)
            side, facts[f"pss_bytes_a_watcher, {name}"] = await open_ones.enter_async_context(way)
            sides.append(side)
        measured = await by_turns("delivery", _first_again(sides), wanted.rounds, told)
    return replace(measured, facts=facts)


CASES: Mapping[str, Callable[[Wanted, Told], Coroutine[Any, Any, Measured]]] = {
    "stored": stored,
    "stored-relayed": stored_relayed,
    "stored-watched": stored_watched,
    "spread": spread,
    "batches": batches,
    "api-processes": api_processes,
    "publisher-processes": publisher_processes,
    "gateway-processes": gateway_processes,
    "watchers": watchers,
    "watched-runs": watched_runs,
}
