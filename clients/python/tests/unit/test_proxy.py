"""The line does to bytes what its mode says, and all that was held back passes afterwards, in order."""

import asyncio
from collections.abc import AsyncGenerator

import pytest
import uvloop

from juinie.torture.proxy import BadLine, Mode

type Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]


class Echo:
    """A server that says back what it hears, and keeps it."""

    def __init__(self) -> None:
        self.heard = b""
        self.port = 0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(65536):
            self.heard += data
            writer.write(data)
        writer.close()


@pytest.fixture
async def echo() -> AsyncGenerator[Echo]:
    served = Echo()
    server = await asyncio.start_server(served.serve, "127.0.0.1", 0)
    served.port = server.sockets[0].getsockname()[1]
    yield served
    server.close()


@pytest.fixture
async def line(echo: Echo) -> AsyncGenerator[BadLine]:
    async with BadLine("127.0.0.1", echo.port, delay_seconds=0.05) as made:
        yield made


@pytest.fixture
async def streams(line: BadLine) -> AsyncGenerator[Streams]:
    reader, writer = await asyncio.open_connection("127.0.0.1", line.port)
    yield reader, writer
    writer.transport.abort()


async def silent(reader: asyncio.StreamReader) -> bool:
    try:
        await asyncio.wait_for(reader.read(1), 0.1)
    except TimeoutError:
        return True
    return False


async def test_good_line_passes_all_and_closes_when_the_client_does(streams: Streams, line: BadLine) -> None:
    reader, writer = streams
    sent = bytes(range(256)) * 4096
    writer.write(sent)
    assert await asyncio.wait_for(reader.readexactly(len(sent)), 10) == sent
    writer.close()
    async with asyncio.timeout(10):
        while line.open:
            await asyncio.sleep(0.01)


async def test_hanging_line_passes_nothing_until_it_is_good_again(
    streams: Streams, line: BadLine, echo: Echo
):
    reader, writer = streams
    line.set(Mode.HANG)
    writer.write(b"held")
    assert await silent(reader)
    assert echo.heard == b""
    line.set(Mode.GOOD)

    assert await asyncio.wait_for(reader.readexactly(4), 10) == b"held"


async def test_one_way_line_brings_the_question_and_not_the_answer(
    streams: Streams, line: BadLine, echo: Echo
):
    reader, writer = streams
    writer.write(b"a")
    assert await asyncio.wait_for(reader.readexactly(1), 10) == b"a"
    line.set(Mode.ONE_WAY)
    writer.write(b"b")
    assert await silent(reader)
    assert echo.heard == b"ab"
    line.set(Mode.GOOD)

    assert await asyncio.wait_for(reader.readexactly(1), 10) == b"b"


async def test_delayed_bytes_stay_in_order_when_the_delay_ends(streams: Streams, line: BadLine):
    reader, writer = streams
    line.set(Mode.DELAY)
    writer.write(b"first ")
    await writer.drain()
    line.set(Mode.GOOD)
    writer.write(b"second")

    assert await asyncio.wait_for(reader.readexactly(12), 10) == b"first second"


async def test_cut_line_breaks_what_is_open_and_takes_what_comes(streams: Streams, line: BadLine):
    reader, writer = streams
    writer.write(b"a")
    await asyncio.wait_for(reader.readexactly(1), 10)
    line.cut()
    with pytest.raises((ConnectionResetError, asyncio.IncompleteReadError)):
        await asyncio.wait_for(reader.readexactly(1), 10)
    reader, writer = await asyncio.open_connection("127.0.0.1", line.port)
    writer.write(b"b")
    assert await asyncio.wait_for(reader.readexactly(1), 10) == b"b"
    writer.close()


async def test_refusing_line_closes_at_once(line: BadLine, echo: Echo):
    line.set(Mode.REFUSE)
    reader, writer = await asyncio.open_connection("127.0.0.1", line.port)
    with pytest.raises((ConnectionResetError, asyncio.IncompleteReadError)):
        await asyncio.wait_for(reader.readexactly(1), 10)
    writer.close()
    assert echo.heard == b""


def test_what_comes_at_once_is_passed_whole_on_uvloop_too():
    """uvloop reads before the other half is there, whatever was asked of it in `connection_made`."""

    async def ask() -> None:
        served = Echo()
        server = await asyncio.start_server(served.serve, "127.0.0.1", 0)
        async with BadLine("127.0.0.1", server.sockets[0].getsockname()[1]) as line:
            for number in range(200):
                reader, writer = await asyncio.open_connection("127.0.0.1", line.port)
                writer.write(b"%d " % number)
                await asyncio.sleep(0)
                writer.write(b"and the rest")
                expected = b"%d and the rest" % number
                assert await asyncio.wait_for(reader.readexactly(len(expected)), 10) == expected
                writer.close()
        server.close()

    uvloop.run(ask())


def test_line_that_hangs_lets_nothing_pass_on_uvloop_too():
    async def ask() -> None:
        served = Echo()
        server = await asyncio.start_server(served.serve, "127.0.0.1", 0)
        async with BadLine("127.0.0.1", server.sockets[0].getsockname()[1]) as line:
            line.set(Mode.HANG)
            reader, writer = await asyncio.open_connection("127.0.0.1", line.port)
            writer.write(b"held")
            assert await silent(reader)
            assert served.heard == b""
            line.set(Mode.GOOD)
            assert await asyncio.wait_for(reader.readexactly(4), 10) == b"held"
            writer.close()
        server.close()

    uvloop.run(ask())
