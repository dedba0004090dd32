"""Clients that read a stream slowly: at which rate each is waited for, when it is sent away, and what it is told.

By hand, in some three minutes:

    pytest -s bench/slow_readers.py

Each has a run of 2 MB of its own, which gets an event a second more; each rate with a tiny receive buffer and with the
system's own. On the loopback device a window that has closed opens again when the whole receive buffer has been read.
"""

import asyncio
import json
import time
from itertools import product
from pathlib import Path
from uuid import UUID

import pytest

from juinie_shared.db.pool import Pool
from juinie_testkit.kafka import create_topic
from juinie_testkit.plugin import SIGNING_KEYS
from juinie_testkit.raw_stream import RawStream, connect_raw, stream_request
from juinie_testkit.seed import Seed, SeededKey
from juinie_testkit.stack import Stack

RATES = (0, 100, 1024, 2048, 4096, 10_240)
RECEIVE_BUFFERS = (4096, None)
SECONDS = 150
EVENTS, EVENT_BYTES = 1000, 2000
READS_PER_SECOND = 5

pytestmark = pytest.mark.timeout(400)


class SlowReader:
    """Reads at its rate until the time is over or the connection is."""

    def __init__(self, run_id: UUID, rate: int, receive_buffer: int | None) -> None:
        self.run_id, self.rate, self.receive_buffer = run_id, rate, receive_buffer
        self.ended = "stays"
        self.seconds = 0.0
        self.client: RawStream | None = None

    async def read(self, port: int, key: SeededKey) -> None:
        self.client = client = await connect_raw(port, self.receive_buffer)
        began = time.monotonic()
        await client.send(stream_request(self.run_id, key.text))
        await client.read(500)
        try:
            async with asyncio.timeout(SECONDS):
                while await self._some(client):
                    pass
                self.ended = "closed"
        except ConnectionResetError:
            self.ended = "reset"
        except TimeoutError:
            pass
        self.seconds = time.monotonic() - began

    async def _some(self, client: RawStream) -> bytes:
        await asyncio.sleep(1 / READS_PER_SECOND)
        if self.rate:
            return await client.read(max(1, self.rate // READS_PER_SECOND))
        client.look()
        return b"nothing"

    def report(self, ends: dict[str, str]) -> str:
        """What the gateway did, and what the client saw of it."""
        received = self.client.received if self.client else b""
        told = "told" if b"stream.reconnect" in received else "not told"
        gateway = ends.get(str(self.run_id), "goes on")
        return (
            f"  {self.rate:>6} B/s, receive buffer {self.receive_buffer or 'default':>7}: {gateway:<18}"
            f" client: {self.ended} after {self.seconds:5.1f} s, {len(received):>8} bytes, {told}"
        )


def ends_of(log: Path) -> dict[str, str]:
    """How each run's stream ended, and when."""
    lines = [json.loads(line) for line in log.read_text().splitlines() if '"stream_ended"' in line]
    return {line["run_id"]: f"{line['reason']} {line['duration_seconds']:.1f} s" for line in lines}


async def append_for_ever(seed: Seed, runs: list[UUID]) -> None:
    while True:
        for run_id in runs:
            await seed.append(run_id, ("text", "x" * 200), notify=True)
        await asyncio.sleep(1)


async def test_readers_at_several_rates(
    database_url: str, kafka_bootstrap_servers: str, kafka_topic: str, pool: Pool, tmp_path: Path
) -> None:
    await create_topic(kafka_bootstrap_servers, kafka_topic, partitions=3)
    stack = Stack(
        database_url, kafka_bootstrap_servers, kafka_topic, tmp_path,
        environment={"JUINIE_STREAM_TOKEN_KEYS": SIGNING_KEYS},
    )  # fmt: skip
    await stack.publisher.start()
    await stack.gateway.start()
    seed = Seed(pool)
    key = await seed.key()
    readers: list[SlowReader] = []
    for rate, receive_buffer in product(RATES, RECEIVE_BUFFERS):
        readers.append(SlowReader(run_id := await seed.run(key), rate, receive_buffer))
        for _ in range(EVENTS // 100):
            await seed.append(run_id, *[("text", "x" * EVENT_BYTES) for _ in range(100)])
    port = int(stack.gateway.url.rpartition(":")[2])
    appending = asyncio.create_task(append_for_ever(seed, [reader.run_id for reader in readers]))
    try:
        await asyncio.gather(*(reader.read(port, key) for reader in readers))
        ends = ends_of(stack.gateway.log)
        for reader in readers:
            print(reader.report(ends))
    finally:
        appending.cancel()
        for reader in readers:
            if reader.client:
                reader.client.leave()
        stack.end()
