"""What metrics and traces cost: the whole of Juinie with one trace in a hundred and a scrape, and without either.

Each is a Juinie of its own, with the same load at the same pace, by turns.
"""

import asyncio
import urllib.request
from collections.abc import AsyncGenerator, Callable, Coroutine, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

from latency import Pace, Path, Services
from rounds import Measured, Sample, Side, by_turns
from world import World

PACE = Pace(500, 1, 16)
_NO_CONTENT = b"HTTP/1.1 200 OK\r\nContent-Type: application/x-protobuf\r\nContent-Length: 0\r\n\r\n"

type Told = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Wanted:
    rounds: int
    seconds: float


@asynccontextmanager
async def collector() -> AsyncGenerator[str]:
    """Takes traces as a collector would, and lets them go. Gives its address."""

    async def take(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                length = int(head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0])
                await reader.readexactly(length)
                writer.write(_NO_CONTENT)
        except asyncio.IncompleteReadError:
            writer.close()

    server = await asyncio.start_server(take, "127.0.0.1", 0)
    async with server:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"


async def whole(wanted: Wanted, told: Told) -> Measured:
    """Appends of one event, from the api to their watchers."""

    def side(name: str, path: Path, *, scraped: bool) -> Side:
        async def turn() -> Sample:
            scrape = asyncio.to_thread(_scrape, path.services) if scraped else asyncio.sleep(0)
            (sample, _), _ = await asyncio.gather(path.carry(PACE, wanted.seconds), scrape)
            return sample

        return Side(name, turn)

    async with (
        collector() as endpoint,
        World(with_kafka=True) as told_world,
        World(with_kafka=True) as silent_world,
        Path.open(told_world, await _told(told_world, endpoint)) as on,
        Path.open(silent_world, await _silent(silent_world)) as off,
    ):
        sides = [
            side("off", off, scraped=False),
            side("on", on, scraped=True),
            side("again", off, scraped=False),
        ]
        return await by_turns("event", sides, wanted.rounds, told)


async def _told(world: World, endpoint: str) -> Services:
    return await Services.start(
        world,
        {
            "OTEL_EXPORTER_OTLP_ENDPOINT": endpoint,
            "OTEL_TRACES_SAMPLER": "parentbased_traceidratio",
            "OTEL_TRACES_SAMPLER_ARG": "0.01",
        },
    )


async def _silent(world: World) -> Services:
    return await Services.start(world, {"OTEL_SDK_DISABLED": "true"}, through="unmetered")


def _scrape(services: Services) -> None:
    """As Prometheus does four times a minute; here once a turn."""
    for service in services.by_name.values():
        with urllib.request.urlopen(f"{service.url}/metrics") as answer:
            assert answer.read()


CASES: Mapping[str, Callable[[Wanted, Told], Coroutine[Any, Any, Measured]]] = {"whole": whole}
