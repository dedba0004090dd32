"""The torture's own eyes: a gateway on a socket that tells one lie at a time, seen by a real watcher over real connections."""

import asyncio
import random
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager

import pytest

from juinie.client import Client
from juinie.torture.findings import Kind
from juinie.torture.reconnects import Reconnect
from juinie.torture.scene import Load, Scene
from juinie.torture.watcher import TortureWatcher

RUN = "0193a1b2-0000-7000-8000-000000000001"
HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
LAST = 5


def event(seq: int, *, position: int | None = -1, data: bytes = b"") -> bytes:
    """A frame. Its id is its seq, unless another is given, or none."""
    kind = {1: b"run.created", LAST: b"run.finished"}.get(seq, b"torture")
    said = data or {LAST: b'{"status":"success"}'}.get(seq, b'{"n":%d}' % seq)
    body = b'data: {"seq":%d,"type":"%b","time":"t","data":%b}\n' % (seq, kind, said)
    at = seq if position == -1 else position
    return body + (b"" if at is None else b"id: %d\n" % at) + b"\n"


def end(last_seq: int = LAST, status: str = "success") -> bytes:
    return b'event: stream.end\ndata: {"last_seq":%d,"status":"%b"}\n\n' % (last_seq, status.encode())


def log(*seqs: int) -> list[bytes]:
    return [event(seq) for seq in seqs]


CUT = b"cut"
NO_CONTENT = [b"204"]


@asynccontextmanager
async def gateway(*connections: Sequence[bytes]) -> AsyncGenerator[Scene]:
    """Gives each connection its frames, the last connection's over and over; a body ends cleanly, unless it is `CUT`."""
    coming = list(connections)

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        frames = coming.pop(0) if len(coming) > 1 else coming[0]
        if frames == NO_CONTENT:
            writer.write(b"HTTP/1.1 204 No Content\r\nConnection: close\r\n\r\n")
        else:
            body = [b"retry: 1\n\n", *(frame for frame in frames if frame is not CUT)]
            writer.write(HEAD + b"".join(b"%x\r\n%b\r\n" % (len(piece), piece) for piece in body))
            writer.write(b"" if CUT in frames else b"0\r\n\r\n")
        await writer.drain()
        writer.close()

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
        url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        async with Client(url, url, "jn_x") as client:
            yield Scene(client, Load(), random.Random(3))


async def watched(*connections: Sequence[bytes]) -> tuple[set[Kind], dict[str, int]]:
    """What a watcher finds who sees the run to its end, and which answers were wrong."""
    async with gateway(*connections) as scene, asyncio.timeout(20):
        checker = scene.checker
        checker.send(RUN, "a", [b'torture {"n":%d}' % seq for seq in range(2, LAST)])
        checker.acknowledge(RUN, "a", 2, LAST - 1, scene.now())
        checker.finish(RUN, LAST, scene.now())
        checker.end_as(RUN, "finish", "success")
        await TortureWatcher(scene, RUN, "w").watch()
        checker.conclude(RUN)
        return set(checker.findings.counts), dict(scene.figures.wrong_answers)


@pytest.mark.parametrize(
    "connections",
    [
        [[*log(1, 2, 3, 4, 5), end()]],
        [[*log(1, 2), CUT], [*log(3), CUT], [*log(4, 5), end()]],
        [[*log(1, 2, 3, 4, 5), CUT], NO_CONTENT],
    ],
    ids=["at once", "with drops", "204 after the last event"],
)
async def test_honest_gateway_is_believed(connections: list[list[bytes]]) -> None:
    assert await watched(*connections) == (set(), {})


@pytest.mark.parametrize(
    ("kind", "connections"),
    [
        (Kind.LOST, [[*log(1, 2, 4, 5), end()]]),
        (Kind.LOST, [[*log(1, 2, 3), CUT], [*log(5), end()]]),
        (Kind.LOST, [[*log(1, 2), b'event: stream.reset\ndata: {"last_seq":1}\n\n', *log(1, 2, 3, 4, 5), end()]]),
        (Kind.REPEATED, [[*log(1, 2, 2, 3, 4, 5), end()]]),
        (Kind.REPEATED, [[*log(1, 2, 3), CUT], [*log(3, 4, 5), end()]]),
        (Kind.REORDERED, [[*log(1, 3, 2, 4, 5), end()]]),
        (Kind.CORRUPT, [[*log(1, 2), event(3, data=b'{"n":33}'), *log(4, 5), end()]]),
        (Kind.END_MISSING, [log(1, 2), [*log(3, 4, 5), end()]]),
        (Kind.END_MISSING, [[*log(1, 2, 3, 4), end(4)]]),
        (Kind.AFTER_END, [[*log(1, 2, 3, 4, 5), end(), event(6)]]),
        (Kind.WRONG_POSITION, [[event(1), event(2, position=4), CUT], [*log(5), end()]]),
        (Kind.WRONG_POSITION, [[*log(1, 2), b"id: 4\n\n", CUT], [*log(5), end()]]),
        (Kind.WRONG_POSITION, [[event(1, position=None), CUT], [*log(1, 2, 3, 4, 5), end()]]),
        (Kind.WRONG_STATUS, [[*log(1, 2, 3, 4, 5), end(status="error")]]),
        (Kind.WRONG_STATUS, [[*log(1, 2, 3, 4), event(5, data=b'{"status":"error"}'), end()]]),
    ],
    ids=[
        "a gap", "a gap over a drop", "a reset", "twice", "again after a drop", "out of order", "other bytes",
        "a clean end without stream.end", "an early end", "an event after the end", "an id ahead", "an id alone, ahead",
        "no id", "another status at the end", "another status in the last event",
    ],
)  # fmt: skip
async def test_lie_is_seen(kind: Kind, connections: list[list[bytes]]) -> None:
    found, _ = await watched(*connections)

    assert kind in found


@pytest.mark.parametrize("frames", [[b"id: 100\n\n", CUT], [b"id: 100\n\n"]], ids=["cut", "a clean end"])
async def test_reconnect_is_answered_by_events_and_by_no_id(frames: list[bytes]) -> None:
    async with gateway(frames) as scene:
        reconnect = Reconnect(scene, RUN, 100, finished=False, name="r")
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.5):
                await reconnect.go()

    assert Kind.WRONG_POSITION in scene.checker.findings.counts


async def test_reconnect_that_skips_an_event_is_found() -> None:
    async with gateway([event(seq, data=b"0") for seq in range(90, 120)]) as scene, asyncio.timeout(10):
        scene.chance.randint = lambda a, b: a if b < 100 else 50
        await Reconnect(scene, RUN, 100, finished=False, name="r").go()

    assert Kind.LOST in scene.checker.findings.counts
