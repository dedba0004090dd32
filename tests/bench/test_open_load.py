"""Load at a steady pace: who waits for a connection waits, and is counted; a refusal ends it."""

import asyncio
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from types import ModuleType

import pytest


@pytest.fixture
def open_load(bench_module: Callable[[str], ModuleType]) -> ModuleType:
    return bench_module("open_load")


@asynccontextmanager
async def server(status: bytes, first: asyncio.Event | None = None) -> AsyncGenerator[int]:
    """Answers each line with this status, once the event is set. Gives its port."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while await reader.readline():
            if first is not None:
                await first.wait()
            writer.write(b"HTTP/1.1 " + status + b"\r\ncontent-length: 2\r\n\r\nok")
        writer.close()

    made = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with made:
        yield made.sockets[0].getsockname()[1]


async def test_each_request_is_answered_once(open_load):
    sent = list[int]()

    def make(number: int, _due: float) -> bytes:
        sent.append(number)
        return b"x\n"

    async with server(b"201 Created") as port:
        load = open_load.OpenLoad(port, make)
        assert len(await load.send(20, 2_000, 4)) == 20
        assert len(await load.send(5, 2_000, 4)) == 5
    assert sent == list(range(25))


async def test_those_behind_a_slow_answer_do_not_wait_for_it_to_be_due(open_load):
    """And their wait counts: each has a time of its own."""
    all_due = asyncio.Event()

    def make(number: int, _due: float) -> bytes:
        if number == 9:
            all_due.set()
        return b"x\n"

    async with server(b"201 Created", all_due) as port:
        latencies = await open_load.OpenLoad(port, make).send(10, 1_000, 1)
    assert len(latencies) == 10


async def test_a_refusal_is_told(open_load):
    async with server(b"429 Too Many") as port:
        with pytest.raises(AssertionError, match="429"):
            await open_load.OpenLoad(port, lambda *_: b"x\n").send(1, 100, 1)


async def test_a_closed_connection_is_told(open_load):
    async def hang_up(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.close()

    made = await asyncio.start_server(hang_up, "127.0.0.1", 0)
    async with made:
        port = made.sockets[0].getsockname()[1]
        with pytest.raises(AssertionError, match="closed"):
            await open_load.OpenLoad(port, lambda *_: b"x\n").send(1, 100, 1)
