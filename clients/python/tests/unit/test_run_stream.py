"""A run's stream comes back until it is whole, whatever a gateway says in between."""

import asyncio
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import asynccontextmanager
from functools import partial
from itertools import count

import httpx
import pytest

from juinie import connection, run_stream
from juinie.errors import Refused
from juinie.run_stream import RunStream

HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nConnection: close\r\n\r\nretry: 1\n\n"
END = b'event: stream.end\ndata: {"last_seq":3,"status":"success"}\n\n'


def frames(*seqs: int) -> bytes:
    return b"".join(
        b'id: %d\ndata: {"seq":%d,"type":"x","time":"t","data":null}\n\n' % (seq, seq) for seq in seqs
    )


def refused(status: int) -> bytes:
    return b"HTTP/1.1 %d No\r\nRetry-After: 0\r\nContent-Length: 0\r\nConnection: close\r\n\r\n" % status


@asynccontextmanager
async def gateway(answers: Sequence[bytes]) -> AsyncGenerator[tuple[RunStream, list[bytes]]]:
    """Gives each connection its answer. With what came: the heads of the requests."""
    coming, heads = list(answers), list[bytes]()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        heads.append(await reader.readuntil(b"\r\n\r\n"))
        writer.write(coming.pop(0))
        await writer.drain()
        writer.close()

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as server, httpx.AsyncClient() as http:
        yield RunStream(http, [f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"]), heads


async def test_it_comes_back_from_every_answer_that_may_be_another_one_later(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(run_stream, "_UNREACHABLE_SECONDS", 0.0)
    passing = [refused(status) for status in (429, 500, 502, 503, 504)]
    passing.append(
        b"HTTP/1.1 502 No\r\nContent-Encoding: gzip\r\nContent-Length: 4\r\nConnection: close\r\n\r\nnope"
    )
    answers = [*passing, HEAD + frames(1, 2), refused(503), HEAD + frames(3) + END]
    async with gateway(answers) as (stream, heads):
        assert [event.seq async for event in stream.events()] == [1, 2, 3]
    positions = [head.lower().partition(b"last-event-id: ")[2][:1] for head in heads]
    assert positions == [b"0"] * 7 + [b"2"] * 2


@pytest.mark.parametrize("status", [400, 401, 403, 404, 410])
async def test_it_ends_with_an_answer_that_stays_as_it_is(status: int):
    async with gateway([refused(status)]) as (stream, _):
        with pytest.raises(Refused) as caught:
            await anext(stream.events())
    assert caught.value.status == status


@asynccontextmanager
async def staying(answer: Callable[[int, int], bytes]) -> AsyncGenerator[str]:
    """A gateway that sends `answer(connection, seq)` to who has this seq. After what is no END it stays, and is silent."""
    connections, stopping = count(), asyncio.Event()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        seq = int(head.lower().partition(b"last-event-id: ")[2].partition(b"\r\n")[0])
        data = answer(next(connections), seq)
        writer.write(data)
        if not data.endswith(END):
            await stopping.wait()
        writer.close()

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
        try:
            yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        finally:
            stopping.set()


def rest_after(seq: int) -> bytes:
    return HEAD + frames(*range(seq + 1, 4)) + END


async def all_seqs(urls: Sequence[str]) -> list[int]:
    async with asyncio.timeout(30), httpx.AsyncClient() as http:
        return [event.seq async for event in RunStream(http, urls).events()]


@pytest.fixture
def _short_silence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run_stream, "connect", partial(connection.connect, silence_seconds=1.0))
    monkeypatch.setattr(run_stream, "_UNREACHABLE_SECONDS", 0.0)


@pytest.mark.usefixtures("_short_silence")
async def test_it_leaves_a_gateway_that_falls_silent_and_comes_back_to_it():
    asked_after = list[int]()

    def answer(number: int, seq: int) -> bytes:
        asked_after.append(seq)
        return HEAD + frames(1, 2) if number == 0 else rest_after(seq)

    async with staying(answer) as url:
        assert await all_seqs([url]) == [1, 2, 3]
    assert asked_after[:2] == [0, 2]


@pytest.mark.usefixtures("_short_silence")
async def test_it_leaves_a_gateway_that_stays_silent_for_another():
    def silent(number: int, _seq: int) -> bytes:
        return HEAD + frames(1, 2) if number == 0 else b""

    asked_after = list[int]()

    def well(_number: int, seq: int) -> bytes:
        asked_after.append(seq)
        return rest_after(seq)

    async with staying(silent) as one, staying(well) as two:
        assert await all_seqs([one, two]) == [1, 2, 3]
    assert set(asked_after) == {2}
