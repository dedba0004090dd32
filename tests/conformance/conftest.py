"""One running stack for all conformance tests, and the few calls on the API that they need."""

from collections.abc import AsyncGenerator, Awaitable, Callable, Generator
from typing import Any

import msgspec
import pytest

from juinie_shared.db.pool import Pool, open_pool
from juinie_testkit.client import ApiClient
from juinie_testkit.plugin import MakeStack
from juinie_testkit.seed import Seed
from juinie_testkit.stack import Stack
from juinie_testkit.watcher import Watcher

SETTINGS = {
    "JUINIE_ENV": "dev",  # browsers may call from any port of localhost
    "JUINIE_STREAM_HEARTBEAT_SECONDS": "1",
}


@pytest.fixture(scope="session")
def whole_stack(make_stack: MakeStack) -> Generator[Stack]:
    """api, publisher and a gateway on a database and a topic of their own."""
    with make_stack(environment=SETTINGS) as made:
        yield made


@pytest.fixture
async def stack(whole_stack: Stack) -> AsyncGenerator[Stack]:
    """The stack, with every service running when the test begins. A failing test shows its logs."""
    await whole_stack.start()
    yield whole_stack
    print(whole_stack.logs())


@pytest.fixture
async def pool(stack: Stack) -> AsyncGenerator[Pool]:
    """The stack's database."""
    opened = await open_pool(stack.database_url, "conformance")
    yield opened
    await opened.close()


@pytest.fixture
async def make_key(pool: Pool) -> Callable[..., Awaitable[str]]:
    """`await make_key(tenant, scopes)`: a new API key."""

    async def make(tenant: str = "conformance", scopes: tuple[str, ...] = ("read", "write", "admin")) -> str:
        return (await Seed(pool).key(tenant=tenant, scopes=scopes)).text

    return make


@pytest.fixture
async def key(make_key: Callable[..., Awaitable[str]]) -> str:
    """An API key of every scope."""
    return await make_key()


class Page(msgspec.Struct):
    """A page of events, each event as its bytes."""

    events: list[msgspec.Raw]


class Api(ApiClient):
    """The API, in the tests' words."""

    async def new_run(self) -> str:
        """Create a run; its id."""
        return (await self.create())["run_id"]

    async def add(self, run_id: str, *events: tuple[str, Any]) -> int:
        """Append events; the run's last seq."""
        return (await self.append(run_id, *events))["last_seq"]

    async def add_json(self, run_id: str, body: str) -> None:
        """Append with a body as it is, byte for byte."""
        headers = {"Content-Type": "application/json"}
        answer = await self.http.post(f"/v1/runs/{run_id}/events", content=body.encode(), headers=headers)
        answer.raise_for_status()

    async def end(self, run_id: str, status: str = "success") -> int:
        """Finish a run; its last seq."""
        return (await self.finish(run_id, status))["last_seq"]

    async def finished_run(self, *events: tuple[str, Any]) -> tuple[str, int]:
        """A run with these events that has ended; its id and its last seq."""
        run_id = await self.new_run()
        if events:
            await self.add(run_id, *events)
        return run_id, await self.end(run_id)

    async def delete(self, run_id: str) -> None:
        """Delete a finished run."""
        (await self.http.delete(f"/v1/runs/{run_id}")).raise_for_status()

    async def event_lines(self, run_id: str) -> list[bytes]:
        """What is stored of a run, each event as its bytes."""
        answer = await self.http.get(f"/v1/runs/{run_id}/events", params={"limit": 1000})
        return [bytes(event) for event in msgspec.json.decode(answer.content, type=Page).events]


@pytest.fixture
async def api(stack: Stack, key: str) -> AsyncGenerator[Api]:
    """The API, with a key of every scope."""
    async with Api(stack.api.url, key) as client:
        yield client


@pytest.fixture
def watch(stack: Stack, key: str) -> Callable[..., Watcher]:
    """`async with watch(run_id, after_seq=…) as watcher`: a strict watcher, with the API's key or with `token`."""

    def watch(run_id: str, **how: Any) -> Watcher:
        credential = {} if "token" in how else {"key": key}
        return Watcher(stack.gateway.url, run_id, **credential, **how)

    return watch


@pytest.fixture
def forget_events_before(pool: Pool) -> Callable[[str, int], Awaitable[None]]:
    """What retention does: a run's events before a seq are gone, and the run says so."""

    async def forget(run_id: str, seq: int) -> None:
        async with pool.transaction() as transaction:
            await transaction.execute("UPDATE run SET retained_from_seq = $2 WHERE run_id = $1", run_id, seq)
            await transaction.execute("DELETE FROM run_event WHERE run_id = $1 AND seq < $2", run_id, seq)

    return forget
