"""A gateway on a socket that says what it is told to, true or not: for those who have to see through it.

Its run has the events 1 to 5: `run.created`, three of the type `torture`, `run.finished`.
"""

import asyncio
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import asynccontextmanager

RUN = "0193a1b2-0000-7000-8000-000000000001"
LAST = 5

type Frames = Sequence[bytes]
type Answer = Callable[[str], Frames]
"""What the head of a request is answered with."""

CUT = b"cut"
"""In place of the last chunk: the body does not end cleanly."""
OPEN = b"open"
"""In place of the last chunk: the connection stays open, and silent, until the client leaves."""
NO_CONTENT = [b"204 No Content", b""]
NOT_FOUND = [b"404 Not Found", b'{"code":"run_not_found"}']
UNAUTHENTICATED = [b"401 Unauthorized", b'{"code":"not_authenticated"}']

_HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"


def event(seq: int, *, position: int | None = -1, data: bytes = b"", kind: bytes = b"") -> bytes:
    """A frame. Its id is its seq, unless another is given, or none."""
    kind = kind or {1: b"run.created", LAST: b"run.finished"}.get(seq, b"torture")
    said = data or {LAST: b'{"status":"success"}'}.get(seq, b'{"n":%d}' % seq)
    body = b'data: {"seq":%d,"type":"%b","time":"t","data":%b}\n' % (seq, kind, said)
    at = seq if position == -1 else position
    return body + (b"" if at is None else b"id: %d\n" % at) + b"\n"


def log(*seqs: int) -> list[bytes]:
    return [event(seq) for seq in seqs]


def alone(position: int) -> bytes:
    """An id alone."""
    return b"id: %d\n\n" % position


def caught_up(last_seq: int) -> bytes:
    return b'event: stream.caught_up\ndata: {"last_seq":%d}\n\n' % last_seq


def end(last_seq: int = LAST, status: str = "success") -> bytes:
    return b'event: stream.end\ndata: {"last_seq":%d,"status":"%b"}\n\n' % (last_seq, status.encode())


def sent_away(reason: str) -> list[bytes]:
    return [b'retry: 1\nevent: stream.reconnect\ndata: {"reason":"%b"}\n\n' % reason.encode(), CUT]


def in_turn(*connections: Frames) -> Answer:
    """Each connection gets its frames, and the last one's are given over and over."""
    coming = list(connections)
    return lambda _: coming.pop(0) if len(coming) > 1 else coming[0]


@asynccontextmanager
async def lying_gateway(answer: Answer) -> AsyncGenerator[str]:
    """Its address. Frames are a stream's, or a status line and a body."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        frames = answer((await reader.readuntil(b"\r\n\r\n")).decode())
        if frames[0][:3].isdigit():
            _write_whole(writer, *frames)
        else:
            _write_stream(writer, frames)
        await writer.drain()
        if OPEN in frames:
            await reader.read()
        writer.close()

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"


def _write_whole(writer: asyncio.StreamWriter, status: bytes, body: bytes) -> None:
    length = b"Content-Length: %d\r\n" % len(body) if body else b""
    writer.write(b"HTTP/1.1 %b\r\n%bConnection: close\r\n\r\n%b" % (status, length, body))


def _write_stream(writer: asyncio.StreamWriter, frames: Frames) -> None:
    body = [b"retry: 1\n\n", *(frame for frame in frames if frame not in {CUT, OPEN})]
    writer.write(_HEAD + b"".join(b"%x\r\n%b\r\n" % (len(piece), piece) for piece in body))
    if CUT not in frames and OPEN not in frames:
        writer.write(b"0\r\n\r\n")
