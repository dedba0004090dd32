"""A stack of real processes that tests of the documents may kill, and programs started as a page says."""

import asyncio
import os
import signal
import socket
import sys
from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import pytest

from juinie_shared.db.pool import Pool
from juinie_testkit.seed import Seed
from juinie_testkit.waits import eventually

ROOT = Path(__file__).parents[2]


@dataclass
class Program:
    """A Python program as a child process, ready once `ready_url` answers 200."""

    arguments: list[str]
    environment: dict[str, str]
    ready_url: str
    process: asyncio.subprocess.Process | None = field(default=None, repr=False)

    async def start(self) -> None:
        self.process = await asyncio.create_subprocess_exec(
            sys.executable, *self.arguments, env={**os.environ, **self.environment}
        )
        async with httpx.AsyncClient() as client:
            await eventually(lambda: self._ready(client), 60, f"{self.ready_url} is 200")

    async def kill(self) -> None:
        if self.process and self.process.returncode is None:
            self.process.send_signal(signal.SIGKILL)
            await self.process.wait()

    async def _ready(self, client: httpx.AsyncClient) -> bool:
        assert self.process
        assert self.process.returncode is None, f"{self.arguments} has exited"
        try:
            return (await client.get(self.ready_url)).status_code == 200
        except httpx.TransportError:
            return False


@dataclass
class Stack:
    """The three services on one database and topic, and a key for them."""

    api_url: str
    stream_url: str
    key: str
    programs: list[Program]

    async def kill_and_start_again(self) -> None:
        for program in self.programs:
            await program.kill()
        await start_all(self.programs)


async def start_all(programs: list[Program]) -> None:
    async with asyncio.TaskGroup() as starts:
        for program in programs:
            starts.create_task(program.start())


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@pytest.fixture
async def programs() -> AsyncGenerator[AsyncExitStack]:
    """Programs to be killed at the end of the test."""
    async with AsyncExitStack() as ended:
        yield ended


@pytest.fixture
async def stack(
    pool: Pool,
    database_url: str,
    kafka_bootstrap_servers: str,
    kafka_topic: str,
    signing_keys: str,
    programs: AsyncExitStack,
) -> Stack:
    key = await Seed(pool).key(tenant="docs")
    ports = {name: free_port() for name in ("API", "STREAM", "PUBLISHER")}
    urls = {name: f"http://127.0.0.1:{port}" for name, port in ports.items()}
    environment = {f"JUINIE_{name}_PORT": str(port) for name, port in ports.items()} | {
        "DATABASE_URL": database_url,
        "KAFKA_BOOTSTRAP_SERVERS": kafka_bootstrap_servers,
        "JUINIE_KAFKA_TOPIC": kafka_topic,
        "JUINIE_STREAM_TOKEN_KEYS": signing_keys,
        "JUINIE_STREAM_URL": urls["STREAM"],
        "JUINIE_ENV": "test",
    }
    started = [
        Program(["-m", module], environment, f"{urls[name]}/readyz")
        for name, module in (
            ("API", "juinie_api"),
            ("PUBLISHER", "juinie_publisher"),
            ("STREAM", "juinie_stream_gateway"),
        )
    ]
    for program in started:
        programs.push_async_callback(program.kill)
    await start_all(started)
    return Stack(urls["API"], urls["STREAM"], key.text, started)


@pytest.fixture
async def in_memory(programs: AsyncExitStack) -> Program:
    """The stream that `persistence-before-after.md` compares with."""
    port = free_port()
    page = ROOT / "docs/project/in_memory_stream.py"
    program = Program([str(page), str(port)], {}, f"http://127.0.0.1:{port}/openapi.json")
    await program.start()
    programs.push_async_callback(program.kill)
    return program
