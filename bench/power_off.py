"""A client whose machine loses its power in mid-stream: how long the gateway keeps its stream open.

By hand, as root on Linux, because it needs a network of its own that can be taken away:

    pytest -s bench/power_off.py

Fails where a stream is open for longer than 60 s after.

The client's network namespace loses its link: no FIN, no RST, nothing is acknowledged any more. Two clients: one whose
run is silent (only heartbeats are lost), one whose run goes on.
"""

import asyncio
import os
import subprocess
import sys
import time
from collections.abc import Generator
from pathlib import Path

import pytest

from juinie_shared.db.pool import Pool
from juinie_testkit.plugin import SIGNING_KEYS
from juinie_testkit.scrape import metric, until_metric
from juinie_testkit.seed import Seed
from juinie_testkit.stack import Stack
from juinie_testkit.waits import eventually

OURS, THEIRS = "10.213.7.1", "10.213.7.2"
SPACE, LINK, THEIR_LINK = "juinie-bench", "juinie-b0", "juinie-b1"
FREED_SECONDS = 60
READER = """
import socket, sys
streams = []
for request in sys.argv[3:]:
    stream = socket.create_connection((sys.argv[1], int(sys.argv[2])))
    stream.sendall(request.encode().decode('unicode_escape').encode())
    stream.recv(65536)
    streams.append(stream)
print('reading', flush=True)
while True:
    for stream in streams:
        stream.recv(65536)
"""

pytestmark = pytest.mark.timeout(300)


def run(*command: str) -> None:
    subprocess.run(command, check=True)


@pytest.fixture
def network() -> Generator[None]:
    """Two ends of a wire: ours, and that of a machine whose power can be cut."""
    run("ip", "netns", "add", SPACE)
    try:
        run("ip", "link", "add", LINK, "type", "veth", "peer", "name", THEIR_LINK)
        run("ip", "link", "set", THEIR_LINK, "netns", SPACE)
        run("ip", "addr", "add", f"{OURS}/30", "dev", LINK)
        run("ip", "link", "set", LINK, "up")
        run("ip", "netns", "exec", SPACE, "ip", "addr", "add", f"{THEIRS}/30", "dev", THEIR_LINK)
        run("ip", "netns", "exec", SPACE, "ip", "link", "set", THEIR_LINK, "up")
        yield
    finally:
        run("ip", "link", "del", LINK)
        run("ip", "netns", "del", SPACE)


@pytest.mark.usefixtures("network")
async def test_a_client_without_power_is_found(database_url: str, pool: Pool, tmp_path: Path) -> None:
    stack = Stack(
        database_url, "127.0.0.1:9", "none", tmp_path,
        environment={"JUINIE_STREAM_TOKEN_KEYS": SIGNING_KEYS, "JUINIE_HOST": "0.0.0.0"},
    )  # fmt: skip
    gateway = stack.gateway
    await gateway.start()
    try:
        await cut_and_wait(gateway.url, Seed(pool), OURS, int(gateway.url.rpartition(":")[2]))
    finally:
        gateway.end()


async def cut_and_wait(url: str, seed: Seed, host: str, port: int) -> None:
    key = await seed.key()
    silent, busy = await seed.run(key), await seed.run(key)
    requests = [
        f"GET /v1/runs/{run_id}/stream HTTP/1.1\\r\\nHost: x\\r\\nAuthorization: Bearer {key.text}\\r\\n\\r\\n"
        for run_id in (silent, busy)
    ]
    reader = await asyncio.create_subprocess_exec(
        "ip", "netns", "exec", SPACE, sys.executable, "-c", READER, host, str(port), *requests,
        stdout=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        await until_metric(url, "juinie_streams_open", 2)
        await seed.append(busy, ("text", "x" * 1000))
        run("ip", "netns", "exec", SPACE, "ip", "link", "set", THEIR_LINK, "down")
        await until_none_is_open(url, seed, busy, time.monotonic())
    finally:
        reader.kill()
        await reader.wait()


async def until_none_is_open(url: str, seed: Seed, busy: object, since: float) -> None:
    left = 2.0

    async def fewer() -> bool:
        nonlocal left
        await seed.append(busy, ("text", "x" * 1000))  # pyright: ignore[reportArgumentType]
        now = await metric(url, "juinie_streams_open")
        if now < left:
            print(f"{time.monotonic() - since:.1f} s after the power went: {now:.0f} open")
            left = now
        await asyncio.sleep(0.2)
        return left == 0

    await eventually(fewer, 200, "no stream is open")
    took = time.monotonic() - since
    assert took < FREED_SECONDS, f"{took:.1f} s until the last stream was given up"


assert os.geteuid() == 0 or "pytest" not in sys.modules, "This needs a root's network."
