"""What refusals cost the process that gives them, in CPU time of its event loop's thread and in bytes of answer; and by how much the dearest
of them, sent one after the other, make its event loop late, by its own metric.

.venv/bin/pytest -s bench/refusal_cost.py
"""

import gzip
import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest

from juinie_shared.db.pool import Pool
from juinie_shared.runtime.loop_lag import BUCKETS
from juinie_testkit.costly import costly_bodies
from juinie_testkit.seed import Seed
from juinie_testkit.stack import ServiceProcess, Stack

pytestmark = pytest.mark.timeout(300)

TIMES = 5
DEAR_SECONDS, DEAR_FOR_SECONDS = 0.025, 4.0
"""What costs so much is asked for again and again for so long: the loop is looked at four times a second."""
PATHS = {
    "append": "/v1/runs/{}/events",
    "create": "/v1/runs",
    "finish": "/v1/runs/{}/finish",
    "claim": "/v1/claims",
}
GOAL_SECONDS = 0.05
GZIP = {"Content-Type": "application/json", "Content-Encoding": "gzip"}


def long_requests(run: str) -> dict[str, dict[str, Any]]:
    """Requests whose heads are as long as they may be."""
    room = 30_000
    return {
        "unknown parameters": {"url": f"{run}?" + "&".join("a" * (room // 2))},
        "one parameter again and again": {"url": f"{run}?" + "&".join(["types=a"] * (room // 8))},
        "many types": {"url": f"{run}?types=" + ",".join("a" * (room // 2))},
        "escapes": {"url": f"{run}?types=" + "%41" * (room // 3)},
        "a long id": {"url": run.replace("/v1/runs/", "/v1/runs/" + "0" * room)},
        "many ranges of Accept": {"url": run, "headers": {"Accept": ",".join(["a/b;q=0"] * (room // 8))}},
        "long headers": {"url": run, "headers": {"Last-Event-ID": "9" * room}},
        "a long key": {"url": run, "headers": {"Idempotency-Key": "k" * room, "Juinie-Lease": "1"}},
        "many headers": {"url": run, "headers": {f"x-{n}": "v" for n in range(88)}},
    }


async def test_cost(
    database_url: str,
    kafka_bootstrap_servers: str,
    kafka_topic: str,
    signing_keys: str,
    pool: Pool,
    tmp_path: Path,
) -> None:
    seed = Seed(pool)
    key = await seed.key()
    run_id = str(await seed.run(key))
    environment = {"JUINIE_STREAM_TOKEN_KEYS": signing_keys}
    shown = {"Authorization": f"Bearer {key.text}"}
    async with (
        Stack(database_url, kafka_bootstrap_servers, kafka_topic, tmp_path, environment=environment) as stack,
        httpx.AsyncClient(headers=shown, trust_env=False, timeout=60) as client,
    ):
        for name, (verb, body) in costly_bodies().items():
            packed = gzip.compress(body)
            url = stack.api.url + PATHS[verb].format(run_id)
            await tell(
                f"{name}, {len(packed)} B packed",
                stack.api,
                lambda u=url, p=packed: client.post(u, content=p, headers=GZIP),
            )
        for service, path in (
            (stack.api, f"/v1/runs/{run_id}/events"),
            (stack.gateway, f"/v1/runs/{run_id}/stream"),
        ):
            for name, request in long_requests(path).items():
                url = service.url + request["url"]
                await tell(
                    f"{path[-6:]}: {name}",
                    service,
                    lambda u=url, r=request: head_of(client, u, r.get("headers", {})),
                )


async def head_of(client: httpx.AsyncClient, url: str, headers: dict[str, str]) -> httpx.Response:
    """The answer; of a stream its head."""
    async with client.stream("GET", url, headers=headers) as answer:
        if answer.status_code != 200:
            await answer.aread()
        return answer


async def tell(name: str, service: ServiceProcess, ask: Callable[[], Any]) -> None:
    await ask()
    before = cpu_seconds(service)
    answers = [await ask() for _ in range(TIMES)]
    each = (cpu_seconds(service) - before) / TIMES
    size = len(answers[0].content) if answers[0].is_closed and answers[0].status_code != 200 else 0
    late = f"  {await lateness(service, ask)}" if each >= DEAR_SECONDS else ""
    print(f"{each * 1000:7.1f} ms  {answers[0].status_code} {size:6d} B  {name}{late}")


async def lateness(service: ServiceProcess, ask: Callable[[], Any]) -> str:
    """By how much its loop ran timers late while it was asked again and again."""
    before, until = await looks(service), time.monotonic() + DEAR_FOR_SECONDS
    asked = 0
    while time.monotonic() < until:
        await ask()
        asked += 1
    counts = [after - was for after, was in zip(await looks(service), before, strict=True)]
    worst = next(
        bound for bound, count in zip((*BUCKETS, math.inf), counts, strict=True) if count == counts[-1]
    )
    over = counts[-1] - counts[BUCKETS.index(GOAL_SECONDS)]
    return f"{asked} times: the loop late by {worst * 1000:g} ms at most, {over:g} of {counts[-1]:g} looks above {GOAL_SECONDS * 1000:g} ms"


async def looks(service: ServiceProcess) -> list[float]:
    """How many looks found it late by each of the buckets or less, and all."""
    name = {"api": "juinie_api", "gateway-1": "juinie_stream"}[service.name]
    async with httpx.AsyncClient(trust_env=False) as client:
        lines = (await client.get(f"{service.url}/metrics")).text.splitlines()
    start = f"{name}_loop_lag_seconds_bucket"
    return [float(line.split()[-1]) for line in lines if line.startswith(start)]


def cpu_seconds(service: ServiceProcess) -> float:
    """Of the thread that runs the event loop."""
    return int(Path(f"/proc/{service.pid}/schedstat").read_text().split()[0]) / 1e9
