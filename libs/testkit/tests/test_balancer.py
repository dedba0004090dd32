"""The balancer: whom it leaves out at once, and whom only after a while."""

import asyncio
import contextlib
from collections.abc import AsyncGenerator

import pytest

from juinie_testkit import balancer as module
from juinie_testkit.balancer import SILENT_PROBES, Balancer
from juinie_testkit.waits import eventually


class Replica:
    """Answers each probe with `status`, or not at all where there is none."""

    def __init__(self) -> None:
        self.status: int | None = 200
        self.probes = 0
        self.url = ""

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while await reader.readuntil(b"\r\n\r\n"):
            self.probes += 1
            if self.status is not None:
                writer.write(b"HTTP/1.1 %d .\r\nContent-Length: 0\r\n\r\n" % self.status)


@pytest.fixture
async def replica() -> AsyncGenerator[Replica]:
    made = Replica()
    async with await asyncio.start_server(made.serve, "127.0.0.1", 0) as server:
        made.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        yield made


@pytest.fixture(autouse=True)
def looks_often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "LOOK_EVERY_SECONDS", 0.01)
    monkeypatch.setattr(module, "LOOK_SECONDS", 0.2)


async def until_seen(balancer: Balancer, replica: Replica, *, ready: bool) -> None:
    await eventually(lambda: (replica.url in balancer.ready) is ready, 10, f"ready: {ready}")


async def test_who_says_nothing_is_left_out_after_a_few_probes_and_not_before(replica: Replica):
    async with Balancer([replica.url]) as balancer:
        await until_seen(balancer, replica, ready=True)
        replica.status, asked = None, replica.probes
        while replica.url in balancer.ready:
            await asyncio.sleep(0)
        assert replica.probes - asked == SILENT_PROBES
        replica.status = 200
        await until_seen(balancer, replica, ready=True)


async def test_a_probe_that_is_answered_again_begins_the_count_anew(replica: Replica):
    async with Balancer([replica.url]) as balancer:
        await until_seen(balancer, replica, ready=True)
        for _ in range(2):
            replica.status, asked = None, replica.probes
            await eventually(lambda asked=asked: replica.probes == asked + 2, 10, "two probes")
            replica.status, asked = 200, replica.probes
            await eventually(lambda asked=asked: replica.probes >= asked + 2, 10, "answered again")
        assert replica.url in balancer.ready


async def test_who_says_that_it_is_not_ready_is_left_out_at_once(replica: Replica):
    async with Balancer([replica.url]) as balancer:
        await until_seen(balancer, replica, ready=True)
        replica.status, asked = 503, replica.probes
        await until_seen(balancer, replica, ready=False)
        assert replica.probes - asked <= 2


async def test_a_connection_that_nobody_is_ready_for_is_closed_and_counted(replica: Replica):
    replica.status = 503
    async with Balancer([replica.url]) as balancer:
        reader, writer = await asyncio.open_connection("127.0.0.1", balancer.port)
        with contextlib.suppress(ConnectionResetError):
            assert await reader.read() == b""
        writer.close()
        assert balancer.refused == 1
        assert not balancer.taken
