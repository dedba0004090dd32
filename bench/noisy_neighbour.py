"""What a tenant at ten times its limit costs a quiet one: appends and stream latency, in rounds with and without noise.

.venv/bin/pytest -s bench/noisy_neighbour.py
"""

import asyncio
import sys
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import pytest

from juinie_shared.db.pool import Pool
from juinie_testkit.manners import give_way
from juinie_testkit.seed import Seed
from juinie_testkit.stack import Stack

pytestmark = pytest.mark.timeout(580)

ROUNDS, ROUND_SECONDS = 8, 10.0
EVERY_SECONDS = 0.02
LIMIT_PER_SECOND, TIMES, CONNECTIONS = 20, 10, 100


@dataclass
class Latencies:
    """In seconds, of the quiet tenant."""

    appends: list[float] = field(default_factory=list)
    stream: list[float] = field(default_factory=list)


async def test_noise(
    database_url: str,
    kafka_bootstrap_servers: str,
    kafka_topic: str,
    signing_keys: str,
    pool: Pool,
    tmp_path: Path,
) -> None:
    seed = Seed(pool)
    quiet, noisy = await seed.key("quiet"), await seed.key("noisy")
    await seed.limit(noisy, "noisy", requests_per_minute=60 * LIMIT_PER_SECOND)
    quiet_run, noisy_run = await seed.run(quiet), await seed.run(noisy)
    environment = {
        "JUINIE_STREAM_TOKEN_KEYS": signing_keys, "JUINIE_LOG_LEVEL": "info", "JUINIE_RATE_WINDOW_SECONDS": "1",
    }  # fmt: skip
    calm, loud = Latencies(), Latencies()
    async with Stack(
        database_url, kafka_bootstrap_servers, kafka_topic, tmp_path, environment=environment
    ) as stack:
        headers = {"Authorization": f"Bearer {quiet.text}"}
        async with httpx.AsyncClient(headers=headers, trust_env=False, timeout=30) as client:
            await measure(client, stack, str(quiet_run), Latencies(), 3.0)
            for number in range(ROUNDS):
                if number % 2:
                    noise = await start_noise(stack, noisy.text, str(noisy_run))
                    await measure(client, stack, str(quiet_run), loud, ROUND_SECONDS)
                    said, _ = await noise.communicate()
                    print(said.decode().strip())
                else:
                    await measure(client, stack, str(quiet_run), calm, ROUND_SECONDS)
    tell("appends", calm.appends, loud.appends)
    tell("stream", calm.stream, loud.stream)


def tell(what: str, calm: list[float], loud: list[float]) -> None:
    for name, share in (("p50", 0.5), ("p99", 0.99)):
        before, after = (sorted(times)[int(len(times) * share)] for times in (calm, loud))
        print(
            f"{what} {name}: {before * 1000:.1f} ms calm, {after * 1000:.1f} ms with noise, ratio {after / before:.2f}"
            f" ({len(calm)} and {len(loud)})"
        )


async def measure(
    client: httpx.AsyncClient, stack: Stack, run_id: str, into: Latencies, seconds: float
) -> None:
    """Append at a steady pace, and take the time until the answer and until the event is on the stream."""
    watching = asyncio.create_task(watch(client, stack, run_id, into))
    path, until = f"{stack.api.url}/v1/runs/{run_id}/events", time.perf_counter() + seconds
    while (began := time.perf_counter()) < until:
        answer = await client.post(path, json={"events": [{"type": "x", "data": time.perf_counter()}]})
        assert answer.status_code == 201, answer.text
        into.appends.append(time.perf_counter() - began)
        await asyncio.sleep(max(0.0, began + EVERY_SECONDS - time.perf_counter()))
    await asyncio.sleep(1)
    watching.cancel()


async def watch(client: httpx.AsyncClient, stack: Stack, run_id: str, into: Latencies) -> None:
    address = f"{stack.gateway.url}/v1/runs/{run_id}/stream?after_seq=tail"
    async with client.stream("GET", address) as stream:
        async for line in stream.aiter_lines():
            if line.startswith("data: ") and '"type":"x"' in line:
                sent = float(line.rpartition('"data":')[2].rstrip("}"))
                into.stream.append(time.perf_counter() - sent)


async def start_noise(stack: Stack, key: str, run_id: str) -> asyncio.subprocess.Process:
    arguments = (str(stack.api.port), key, run_id)
    return await asyncio.create_subprocess_exec(
        sys.executable, __file__, *arguments, stdout=asyncio.subprocess.PIPE
    )


async def make_noise(port: int, key: str, run_id: str) -> None:
    """Appends over many connections, each as fast as its share of the rate allows."""
    body = b'{"events":[{"type":"x","data":1}]}'
    request = (
        f"POST /v1/runs/{run_id}/events HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {key}\r\n"
        f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    ).encode() + body
    statuses: Counter[str] = Counter()
    until = time.monotonic() + ROUND_SECONDS

    async def one(number: int) -> None:
        every = CONNECTIONS / (LIMIT_PER_SECOND * TIMES)
        await asyncio.sleep(every * number / CONNECTIONS)
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        while (began := time.monotonic()) < until:
            writer.write(request)
            head = await reader.readuntil(b"\r\n\r\n")
            length = head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0]
            await reader.readexactly(int(length))
            statuses[head[9:12].decode()] += 1
            await asyncio.sleep(max(0.0, began + every - time.monotonic()))
        writer.close()

    await asyncio.gather(*(one(number) for number in range(CONNECTIONS)))
    print(f"noise: {dict(statuses)} in {ROUND_SECONDS:.0f} s")


if __name__ == "__main__":
    give_way()
    asyncio.run(make_noise(int(sys.argv[1]), *sys.argv[2:]))
