"""What metrics and traces cost: the whole of Juinie with one trace in a hundred and a scrape, and without either.

Each is a Juinie of its own, with the same load at the same pace, by turns.
"""

import asyncio
from collections.abc import Callable, Coroutine, Mapping
from dataclasses import dataclass
from typing import Any

from latency import Pace, Path, Services
from reach import http_client
from rounds import Measured, Sample, Side, by_turns
from world import World

from juinie_testkit.plain_http import NO_TLS

PACE = Pace(500, 1, 16)

type Told = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Wanted:
    rounds: int
    seconds: float


async def whole(wanted: Wanted, told: Told) -> Measured:
    """Appends of one event, from the api to their watchers."""

    def side(name: str, path: Path, scraped: Services | None = None) -> Side:
        async def turn() -> Sample:
            scrape = _scrape(scraped) if scraped else asyncio.sleep(0)
            (sample, _), _ = await asyncio.gather(path.carry(PACE, wanted.seconds), scrape)
            return sample

        return Side(name, turn)

    async with (
        World(with_kafka=True) as told_world,
        World(with_kafka=True) as silent_world,
        Path.open(told_world, services := await Services.start(told_world)) as on,
        Path.open(silent_world, await _silent(silent_world)) as off,
    ):
        sides = [side("off", off), side("on", on, services), side("again", off)]
        return await by_turns("event", sides, wanted.rounds, told)


async def _silent(world: World) -> Services:
    return await Services.start(world, {"OTEL_SDK_DISABLED": "true"}, through="unmetered")


async def _scrape(services: Services) -> None:
    """As Prometheus does four times a minute; here once a turn."""
    async with http_client(verify=NO_TLS) as client:
        for service in services.by_name.values():
            (await client.get(f"{service.url}/metrics")).raise_for_status()


CASES: Mapping[str, Callable[[Wanted, Told], Coroutine[Any, Any, Measured]]] = {"whole": whole}
