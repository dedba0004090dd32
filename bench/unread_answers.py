"""Clients that ask the api for much and never read it: what each makes it hold, for how long, and what others feel.

By hand, in some two minutes:

    pytest -s bench/unread_answers.py

The largest answers that there are: lists of runs with errors of 250 KiB, and pages of events of that size.
"""

import asyncio
import time
from pathlib import Path

import httpx
import pytest

from juinie_shared.db.pool import Pool
from juinie_testkit.plain_http import NO_TLS
from juinie_testkit.plugin import SIGNING_KEYS
from juinie_testkit.raw_stream import RawStream, connect_raw
from juinie_testkit.scrape import metric, until_metric
from juinie_testkit.seed import Seed, SeededKey
from juinie_testkit.stack import Stack
from juinie_testkit.waits import eventually

CLIENTS = (12, 120)
RUNS, VALUE_BYTES = 220, 250 * 1024
APPENDS = 100
UNREAD, CUT = "juinie_api_unread_bytes", "juinie_api_unread_answers_total"

pytestmark = pytest.mark.timeout(600)


def rss_mib(pid: int) -> float:
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * 4096 / 2**20


class Bench:
    """One api under test, and a client that reads."""

    def __init__(self, stack: Stack, key: SeededKey, client: httpx.AsyncClient, run_id: str) -> None:
        self.url, self.pid, self.key, self.client, self.run_id = (
            stack.api.url,
            stack.api.pid or 0,
            key,
            client,
            run_id,
        )

    async def append_p50_ms(self) -> float:
        took: list[float] = []
        for _ in range(APPENDS):
            began = time.perf_counter()
            body = {"events": [{"type": "text", "data": "x" * 200}]}
            (await self.client.post(f"/v1/runs/{self.run_id}/events", json=body)).raise_for_status()
            took.append(time.perf_counter() - began)
        return sorted(took)[APPENDS // 2] * 1000

    async def never_read(self, count: int, path: str) -> None:
        before, cut = rss_mib(self.pid), await metric(self.url, CUT)
        clients: list[RawStream] = []
        for _ in range(count):
            clients.append(client := await connect_raw(int(self.url.rpartition(":")[2]), receive_buffer=4096))
            await client.send(
                f"GET {path} HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer {self.key.text}\r\n\r\n".encode()
            )
        began = time.monotonic()
        await asyncio.gather(*(client.read(100) for client in clients))
        held, most = await metric(self.url, UNREAD), rss_mib(self.pid)
        p50 = await self.append_p50_ms()
        await until_metric(self.url, CUT, cut + count, 120)
        await eventually(lambda: self._nothing_held(), 20, "nothing waits")
        print(
            f"  {count} of {path.partition('?')[0]}: {held / 2**20:.0f} MiB wait, RSS {before:.0f} -> {most:.0f} MiB, appends p50 {p50:.1f} ms,"
            f" the last is cut after {time.monotonic() - began:.1f} s, RSS then {rss_mib(self.pid):.0f} MiB"
        )
        for client in clients:
            client.leave(reset=True)

    async def _nothing_held(self) -> bool:
        return await metric(self.url, UNREAD) == 0


async def test_answers_that_nobody_reads(
    database_url: str, kafka_bootstrap_servers: str, kafka_topic: str, pool: Pool, tmp_path: Path
) -> None:
    stack = Stack(
        database_url, kafka_bootstrap_servers, kafka_topic, tmp_path,
        environment={"JUINIE_STREAM_TOKEN_KEYS": SIGNING_KEYS, "JUINIE_LOG_LEVEL": "warning"},
    )  # fmt: skip
    key = await Seed(pool).key()
    headers = {"Authorization": f"Bearer {key.text}"}
    await stack.api.start()
    try:
        async with httpx.AsyncClient(
            base_url=stack.api.url, headers=headers, verify=NO_TLS, trust_env=False
        ) as client:
            run_id = (await client.post("/v1/runs", json={"agent": "a"})).json()["run_id"]
            for _ in range(20):
                body = {"events": [{"type": "text", "data": "x" * VALUE_BYTES}]}
                (await client.post(f"/v1/runs/{run_id}/events", json=body)).raise_for_status()
            for _ in range(RUNS):
                made = (await client.post("/v1/runs", json={"agent": "a"})).json()["run_id"]
                body = {"status": "error", "error": "x" * VALUE_BYTES}
                (await client.post(f"/v1/runs/{made}/finish", json=body)).raise_for_status()
            bench = Bench(stack, key, client, run_id)
            print(f"\n  appends p50 {await bench.append_p50_ms():.1f} ms with nobody else")
            for count in CLIENTS:
                await bench.never_read(count, "/v1/runs?limit=200")
                await bench.never_read(count, f"/v1/runs/{run_id}/events?limit=1000")
    finally:
        stack.end()
