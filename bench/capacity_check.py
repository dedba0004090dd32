"""The formulas of `capacity.py` against small real runs of the whole of Juinie: what was foretold, what it was, and their ratio."""

import asyncio
import time
from collections.abc import Callable, Mapping
from pathlib import Path

from append import Shape, body_of
from capacity import Load, need
from clocks import cpu_seconds, family
from crowd import Crowd
from http_load import post, send_all
from stored import store
from world import TOPIC, World

from juinie_testkit.raw_stream import stream_request
from juinie_testkit.stack import ServiceProcess

APPENDS, CONNECTIONS = 3_000, 16
REST_SECONDS = 10.0
CASES: Mapping[str, Load] = {
    "at rest": Load(1_000, 0, 1, 1),
    "one event an append": Load(200, 0, 1, 1),
    "ten events an append": Load(200, 0, 10, 2),
    "ten events an append, many watchers": Load(10, 0, 10, 50),
}
"""The rate is what comes out."""


async def check(told: Callable[[str], None]) -> None:
    """Each case once, with a whole Juinie of its own."""
    for name, load in CASES.items():
        told(f"{name}:")
        for what, (foretold, was) in (await _case(load)).items():
            told(f"  {what:32} foretold {foretold:12.4g}  was {was:12.4g}  {was / foretold:6.2f}")


async def _case(load: Load) -> Mapping[str, tuple[float, float]]:
    async with World(with_kafka=True) as world:
        runs = await store(world, load.active_runs, 0)
        api = await world.service("juinie_api", "JUINIE_API_PORT")
        publisher = await world.service("juinie_publisher", "JUINIE_PUBLISHER_PORT")
        gateway = await world.service("juinie_stream_gateway", "JUINIE_STREAM_PORT")
        watchers = int(load.watchers)
        crowd = Crowd(
            gateway.port, [stream_request(run, world.key.text, 0) for run in runs for _ in range(watchers)]
        )
        await crowd.come()
        await world.quiet()
        requests = [
            post(f"/v1/runs/{run}/events", world.key.text, body_of(Shape(load.events_an_append, 1)))
            for run in runs
        ]
        at_rest = load is CASES["at rest"]
        before, began = await _counts(world, api, publisher, gateway), time.perf_counter()
        if at_rest:
            await asyncio.sleep(REST_SECONDS)
            appends = 0
        else:
            appends = APPENDS // len(runs) * len(runs)
            await send_all(api.port, lambda n: requests[n % len(requests)], appends, CONNECTIONS)
            await crowd.until(appends // len(runs) * load.events_an_append)
        seconds = time.perf_counter() - began
        after = await _counts(world, api, publisher, gateway)
        await crowd.leave()
    was = {what: (after[what] - before[what]) / seconds for what in after}
    rate = appends * load.events_an_append / seconds / load.active_runs
    n = need(
        Load(load.active_runs, rate, load.events_an_append, load.watchers, load.event_bytes, load.routed)
    )
    foretold = {f"cores of {part}": cores for part, cores in n.cores.items()}
    foretold |= {"bytes of WAL a second": n.wal_bytes, "bytes to Kafka a second": n.kafka_in_bytes}
    return {what: (value, was[what]) for what, value in foretold.items() if value}


async def _counts(
    world: World, api: ServiceProcess, publisher: ServiceProcess, gateway: ServiceProcess
) -> Mapping[str, float]:
    services = {"api": api, "publisher": publisher, "gateway": gateway}
    counts = {f"cores of {name}": cpu_seconds(family(service.pid or 0)) for name, service in services.items()}
    return {
        **counts,
        "cores of postgres": world.database_cpu(),
        "bytes of WAL a second": await world.wal_bytes(),
        "bytes to Kafka a second": _on_disk(world.directory / "kafka"),
    }


def _on_disk(directory: Path) -> int:
    """Bytes of the topic's records."""
    return sum(log.stat().st_size for log in directory.rglob(f"{TOPIC}-*/*.log"))
