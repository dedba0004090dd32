"""A stack of real processes that tests of the documents may kill, and the stream in memory that a page compares with."""

import asyncio
import os
import sys
from collections.abc import AsyncGenerator, Generator
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest

from juinie_shared.db.pool import Pool, open_pool
from juinie_testkit.backing.docker import free_port
from juinie_testkit.plugin import MakeStack
from juinie_testkit.seed import Seed
from juinie_testkit.stack import Stack
from juinie_testkit.waits import eventually

IN_MEMORY = Path(__file__).parents[2] / "docs/project/in_memory_stream.py"


@dataclass(frozen=True)
class Juinie:
    """A running stack as `.juinie/env` describes one: two addresses and a key."""

    stack: Stack
    pool: Pool
    key: str

    @property
    def api_url(self) -> str:
        return self.stack.api.url

    @property
    def stream_url(self) -> str:
        return self.stack.gateway.url

    @property
    def environment(self) -> dict[str, str]:
        return {
            "JUINIE_API_URL": self.api_url,
            "JUINIE_STREAM_URL": self.stream_url,
            "JUINIE_API_KEY": self.key,
            "JUINIE_KAFKA_BOOTSTRAP_SERVERS": self.stack.kafka_bootstrap_servers,
        }

    @property
    def headers(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.key}"}

    async def kill_and_start_again(self) -> None:
        for service in self.stack.services:
            await service.kill()
        await self.stack.start()


@pytest.fixture(scope="session")
def stack_of_docs(make_stack: MakeStack) -> Generator[Stack]:
    """One for all tests of a worker; they may kill its services."""
    with make_stack() as made:
        yield made


@pytest.fixture
async def juinie(stack_of_docs: Stack) -> AsyncGenerator[Juinie]:
    """The stack with every service running, and a key. A failing test shows its logs."""
    await stack_of_docs.start()
    pool = await open_pool(stack_of_docs.database_url, "test")
    key = await Seed(pool).key(tenant="docs")
    yield Juinie(stack_of_docs, pool, key.text)
    await pool.close()
    print(stack_of_docs.logs())  # pytest shows it where the test failed


class InMemory:
    """The program beside `persistence-before-after.md`, as a process."""

    def __init__(self) -> None:
        self._port = free_port()
        self.url = f"http://127.0.0.1:{self._port}"
        self._process: asyncio.subprocess.Process | None = None

    async def start(self) -> None:
        self._process = await asyncio.create_subprocess_exec(
            sys.executable, IN_MEMORY, str(self._port), env=os.environ
        )
        async with httpx.AsyncClient() as client:
            await eventually(lambda: self._answers(client), 60, "the stream in memory answers")

    async def kill(self) -> None:
        if self._process:
            self._process.kill()
            await self._process.wait()

    async def kill_and_start_again(self) -> None:
        await self.kill()
        await self.start()

    async def _answers(self, client: httpx.AsyncClient) -> bool:
        try:
            return (await client.get(f"{self.url}/openapi.json")).is_success
        except httpx.TransportError:
            return False


@pytest.fixture
async def in_memory() -> AsyncGenerator[InMemory]:
    stream = InMemory()
    await stream.start()
    yield stream
    await stream.kill()
