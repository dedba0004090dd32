"""A run's stream comes back until it is whole, whatever a gateway says in between."""

import asyncio
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager

import httpx
import pytest

from juinie import run_stream
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
    answers = [*passing, HEAD + frames(1, 2), refused(503), HEAD + frames(3) + END]
    async with gateway(answers) as (stream, heads):
        assert [event.seq async for event in stream.events()] == [1, 2, 3]
    positions = [head.lower().partition(b"last-event-id: ")[2][:1] for head in heads]
    assert positions == [b"0"] * 6 + [b"2"] * 2


@pytest.mark.parametrize("status", [400, 401, 403, 404, 410])
async def test_it_ends_with_an_answer_that_stays_as_it_is(status: int):
    async with gateway([refused(status)]) as (stream, _):
        with pytest.raises(Refused) as caught:
            await anext(stream.events())
    assert caught.value.status == status
