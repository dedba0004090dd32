"""The whole of Juinie under a steady load for as long as one likes: whether memory, tasks, descriptors and latencies stay as they are.

Each minute a hundred runs begin, are watched, appended to and finished. Some of their watchers leave in between and come back to
where they were. What the services hold is looked at twice a minute: under load, and when nobody watches.
"""

import asyncio
import json
import math
import os
import re
import signal
import time
from collections.abc import Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import asyncpg
from clocks import pss_bytes
from crowd import Crowd
from http_load import post, send_all
from latency import RUNS, Pace, Services, append_request, arrived_in
from open_load import OpenLoad
from reach import http_client
from rounds import Measured, Sample, quantile
from stored import store
from world import World

from juinie_shared.domain.ids import RunId
from juinie_testkit.plain_http import NO_TLS
from juinie_testkit.raw_stream import stream_request

PACE = Pace(200, 2, 16)
FILL_CLIENTS = 64
MINUTE_SECONDS = 60.0
WATCHERS, RETURNING = 2, 20
"""Of each run; and of them all, those that leave and come back."""
SETTLED_SECONDS = 1.0
WARM_MINUTES = 5
"""Caches fill: what is kept of recent events, statements of the database."""
MOST_A_RUN = {"pss_bytes": 1_500.0, "blocks": 12.0}
"""At rest, more in the last third of the minutes than in the first, for each run between them: what is remembered of a run in caches that have
their bounds (its tenant, of 20,000 runs, in the publisher; its partition, of 65,536, there and in the gateway), which half an hour does not fill."""
MOST_MORE = {"tasks": 2, "descriptors": 2}
"""Likewise, in all: of pools that filled."""
FEWEST_MINUTES = 9
"""In fewer there is nothing to see."""
_LOOK_SECONDS, _ANSWER_SECONDS = 0.01, 30.0
_PAUSES = re.compile(r'gc_pause_seconds_bucket\{.*le="([^"]+)"\} (\S+)')

type Told = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Wanted:
    """`runs_before`: made and published before the first minute, so that what is remembered of runs is full and grows no more."""

    minutes: int
    runs_before: int = 0


@dataclass(frozen=True, slots=True)
class Minute:
    """What was seen: seconds from an append to its watchers, and what each service held, by service and kind."""

    sample: Sample
    under_load: Mapping[str, Mapping[str, int]]
    at_rest: Mapping[str, Mapping[str, int]]


async def minutes(wanted: Wanted, told: Told) -> Measured:
    """What is not flat is told as missing."""
    async with World(with_kafka=True) as world:
        inside = world.directory / "inside"
        inside.mkdir()
        services = await Services.start(world, {"INSIDE": str(inside)}, through="inside")
        await _fill(world, services, wanted.runs_before)
        seen = list[Minute]()
        for number in range(wanted.minutes):
            seen.append(await _minute(world, services, inside))
            told(f"{number + 1}/{wanted.minutes} {_line(seen[-1])}")
        pauses = await _pauses(services)
    long = [f"{name}, more than the last bucket" for name, value in pauses.items() if math.isinf(value)]
    facts, grown = _thirds(seen[min(WARM_MINUTES, len(seen) // 2) :])
    samples = {"steady": [minute.sample for minute in seen]}
    return Measured("event", samples, {**facts, **pauses}, [*grown, *long])


async def _fill(world: World, services: Services, runs: int) -> None:
    """So many runs, of which every process has heard."""
    if not runs:
        return
    request = post("/v1/runs", world.key.text, b'{"agent":"before"}')
    await send_all(services.by_name["api"].port, lambda _number: request, runs, FILL_CLIENTS)
    connection = await asyncpg.connect(world.postgres.url)
    try:
        while await connection.fetchval("SELECT EXISTS (SELECT FROM outbox)"):
            await asyncio.sleep(SETTLED_SECONDS)
    finally:
        await connection.close()


async def _minute(world: World, services: Services, inside: Path) -> Minute:
    began = time.perf_counter()
    runs = await store(world, RUNS, 0)
    latencies = list[float]()
    crowd = Crowd(
        services.by_name["gateway"].port,
        [stream_request(run, world.key.text, 0) for run in runs for _ in range(WATCHERS)],
        lambda data: latencies.extend(arrived_in(data)),
        every=1,
    )
    await crowd.come()
    load = OpenLoad(
        services.by_name["api"].port,
        lambda number, due: append_request(runs[number % RUNS], world.key.text, PACE.events, due),
    )
    appends = int(PACE.appends * MINUTE_SECONDS * 0.8) // RUNS * RUNS
    cpu, sending = services.cpu(), asyncio.ensure_future(load.send(appends, PACE.appends, PACE.clients))
    await asyncio.sleep(MINUTE_SECONDS * 0.4)
    under_load = await _held(services, inside)
    await _leave_and_return(services, runs, world.key.text)
    await sending
    await crowd.until(appends // RUNS * PACE.events)
    used = {name: now - cpu[name] for name, now in services.cpu().items()}
    seconds = time.perf_counter() - began
    await _finish(services, runs, world.key.text)
    await crowd.leave()
    await asyncio.sleep(SETTLED_SECONDS)
    at_rest = await _held(services, inside)
    await asyncio.sleep(max(0.0, began + MINUTE_SECONDS - time.perf_counter()))
    return Minute(Sample(appends * PACE.events, seconds, used, latencies), under_load, at_rest)


async def _leave_and_return(services: Services, runs: Sequence[RunId], key: str) -> None:
    """Some come besides, leave, and come back to where they were."""
    for after in (0, 1):
        some = Crowd(
            services.by_name["gateway"].port, [stream_request(run, key, after) for run in runs[:RETURNING]]
        )
        await some.come()
        await some.until(after + 1)
        await some.leave()


async def _finish(services: Services, runs: Sequence[RunId], key: str) -> None:
    headers = {"Authorization": f"Bearer {key}"}
    url = services.by_name["api"].url
    async with http_client(base_url=url, headers=headers, verify=NO_TLS) as client:
        for run in runs:
            answer = await client.post(f"/v1/runs/{run}/finish", json={"status": "success"})
            assert answer.status_code == 200, answer.text


async def _held(services: Services, inside: Path) -> dict[str, dict[str, int]]:
    """What each service holds now."""
    held = dict[str, dict[str, int]]()
    for name, service in services.by_name.items():
        assert service.pid, f"{name} does not run"
        held[name] = await asyncio.to_thread(_held_by, service.pid, inside / f"{service.pid}.json")
    return held


def _held_by(pid: int, file: Path) -> dict[str, int]:
    file.unlink(missing_ok=True)
    os.kill(pid, signal.SIGUSR1)
    until = time.monotonic() + _ANSWER_SECONDS
    while not file.exists():
        assert time.monotonic() < until, f"{pid} does not say what it holds."
        time.sleep(_LOOK_SECONDS)
    told = json.loads(file.read_bytes())
    descriptors = sum(1 for _ in Path(f"/proc/{pid}/fd").iterdir())
    return {"pss_bytes": pss_bytes(pid), "descriptors": descriptors, **told}


async def _pauses(services: Services) -> dict[str, float]:
    """Of the garbage collector, as each service tells them: how many, and in milliseconds the mean, and what the greatest does not exceed."""
    facts = dict[str, float]()
    async with http_client(verify=NO_TLS) as client:
        for name, service in services.by_name.items():
            lines = (await client.get(f"{service.url}/metrics")).text.splitlines()
            told = dict(
                line.rsplit(" ", 1) for line in lines if "gc_pause_seconds_" in line and "{" not in line
            )
            count = next(float(value) for metric, value in told.items() if metric.endswith("_count"))
            total = next(float(value) for metric, value in told.items() if metric.endswith("_sum"))
            facts[f"{name}: collections"] = count
            facts[f"{name}: mean pause of a collection, ms"] = total / count * 1e3 if count else 0.0
            facts[f"{name}: no pause longer than, ms"] = _longest(lines, count) * 1e3
    return facts


def _longest(lines: Sequence[str], count: float) -> float:
    """Seconds: the bound of the first bucket that has all of them; infinity where only the last one has."""
    buckets = [found for line in lines if (found := _PAUSES.search(line))]
    return next(float(bucket[1]) for bucket in buckets if float(bucket[2]) == count)


def _thirds(seen: Sequence[Minute]) -> tuple[dict[str, float], list[str]]:
    """First and last third: medians, and their ratio. And what has grown, or that nobody can tell."""
    third = max(1, len(seen) // 3)
    first, last, runs = seen[:third], seen[-third:], (len(seen) - third) * RUNS
    facts, grown = dict[str, float](), list[str]()
    if len(seen) < FEWEST_MINUTES:
        grown.append(f"{len(seen)} minutes after the first ones are too few to tell what grows")
    for moment in ("under_load", "at_rest"):
        for service, kinds in getattr(seen[0], moment).items():
            for kind in kinds:
                before, after = (
                    median(getattr(minute, moment)[service][kind] for minute in some)
                    for some in (first, last)
                )
                name = f"{service} {moment} {kind}"
                facts |= {f"{name}, first third": before, f"{name}, last by first": after / before}
                if moment == "at_rest" and after - before > _most_more(kind, runs):
                    grown.append(f"{name} is not flat: {before:.0f}, then {after:.0f}")
    for share, quantile_name in ((0.5, "p50"), (0.99, "p99")):
        before, after = (
            median(quantile(minute.sample.latencies, share) for minute in some) for some in (first, last)
        )
        name = f"append to socket {quantile_name}"
        facts |= {f"{name}, first third, ms": before * 1e3, f"{name}, last by first": after / before}
    return facts, grown


def _most_more(kind: str, runs: int) -> float:
    return MOST_MORE[kind] if kind in MOST_MORE else MOST_A_RUN[kind] * runs


def _line(minute: Minute) -> str:
    p50, p99 = (quantile(minute.sample.latencies, share) * 1e3 for share in (0.5, 0.99))
    held = "; ".join(
        f"{name} {kinds['pss_bytes'] / 1e6:.1f} MB, {kinds['tasks']} tasks, {kinds['descriptors']} descriptors"
        for name, kinds in minute.at_rest.items()
    )
    return f"p50 {p50:.1f} ms, p99 {p99:.1f} ms; {held}"


CASES: Mapping[str, Callable[[Wanted, Told], Coroutine[Any, Any, Measured]]] = {"minutes": minutes}
