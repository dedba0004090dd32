"""The HTTP server guards every service against what arrives before an application runs. Tried over raw sockets."""

import asyncio
import gzip
import logging
import resource
import socket
from collections.abc import AsyncGenerator, Callable, Generator
from contextlib import suppress
from contextvars import ContextVar
from dataclasses import replace
from functools import partial
from typing import Any, override

import pytest
import structlog
from uvicorn.protocols.http.flow_control import HIGH_WATER_LIMIT

from juinie_shared.domain.errors import PortTaken
from juinie_shared.runtime.cors import Cors
from juinie_shared.runtime.doorstep import Doorstep
from juinie_shared.runtime.hand_over import Handed
from juinie_shared.runtime.http_server import (
    FEW_PIPELINED,
    FEW_PIPELINED_BYTES,
    FIRST_AT_ONCE,
    OWN_DESCRIPTORS,
    GuardedProtocol,
    HttpLimits,
    HttpServer,
)
from juinie_shared.runtime.logs import configure_logs
from juinie_testkit.turns import turns
from juinie_testkit.waits import eventually

LIMITS = HttpLimits(
    head_bytes=2048,
    headers=20,
    head_seconds=0.6,
    body_stall_seconds=0.6,
    body_bytes_per_second=10,
    body_seconds=2,
    connections=5,
    pipelined=8,
    pipelined_in_all=12,
)
PROMISED_HEAD_SECONDS, PROMISED_STALL_SECONDS = 10, 30
AROUND = ContextVar("AROUND", default="none")
ORIGIN = b"http://localhost:5173"


class Application:
    """Reads the body and answers with its length; counts what reached it."""

    def __init__(self) -> None:
        self.requests = self.asked = 0
        self.headers: list[tuple[bytes, bytes]] = []
        self.around: list[str] = []
        self.begun, self.disconnects, self.release = asyncio.Event(), asyncio.Event(), asyncio.Event()

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        self.requests += 1
        self.around.append(AROUND.get())
        AROUND.set("another request's")
        self.headers = scope["headers"]
        self.begun.set()
        if scope["path"] == "/asks":
            await self.ask_again_and_again(receive)
        if scope["path"] == "/held":
            await self.release.wait()
        while scope["path"] == "/wait":
            if (await receive())["type"] == "http.disconnect":
                self.disconnects.set()
                return
        size, more = 0, scope["path"] not in {"/early", "/asks"}
        while more:
            message = await receive()
            if message["type"] == "http.disconnect":
                self.disconnects.set()
                return
            size, more = size + len(message["body"]), message.get("more_body", False)
        await send(
            {
                "type": "http.response.start",
                "status": 200,
                "headers": [(b"content-length", b"%d" % len(str(size)))],
            }
        )
        await send({"type": "http.response.body", "body": str(size).encode()})

    async def ask_again_and_again(self, receive: Any) -> None:
        """As who waits long, and looks whether the client is still there."""
        while not self.release.is_set():
            with suppress(TimeoutError):
                if (await asyncio.wait_for(receive(), 0.002))["type"] == "http.disconnect":
                    return
            self.asked += 1


class Client:
    """A raw connection."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self.writer = reader, writer

    def send(self, data: bytes) -> None:
        self.writer.write(data)

    async def response(self) -> bytes:
        """The next answer, whole."""
        head = await asyncio.wait_for(self._reader.readuntil(b"\r\n\r\n"), 10)
        length = int(head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0])
        return head + await self._reader.readexactly(length)

    async def until_read(self) -> bytes:
        """The next answer; nothing, where the server closes without one."""
        try:
            return await self.response()
        except (asyncio.IncompleteReadError, ConnectionResetError):
            return b""

    async def until_closed(self) -> bytes:
        """All that comes until the server closes."""
        try:
            return await asyncio.wait_for(self._reader.read(), 10)
        except ConnectionResetError:
            return b""


class Served:
    def __init__(self, app: Application, port: int) -> None:
        self.app, self.port, self.refused = app, port, 0
        self.server: HttpServer | None = None
        self._writers: list[asyncio.StreamWriter] = []

    async def client(self) -> Client:
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        self._writers.append(writer)
        return Client(reader, writer)

    @property
    def waiting(self) -> int:
        """Requests behind others, as the server counts them."""
        return self.connections[0].queues.length

    @property
    def waiting_bytes(self) -> int:
        """Of their bodies."""
        return self.connections[0].queues.body_bytes

    @property
    def connections(self) -> list[GuardedProtocol]:
        assert self.server
        return self.server._connections()

    def close(self) -> None:
        for writer in self._writers:
            writer.transport.abort()


@pytest.fixture
async def served() -> AsyncGenerator[Served]:
    app, stopping = Application(), asyncio.Event()
    made = Served(app, 0)

    def count() -> None:
        made.refused += 1

    server = HttpServer(app, "127.0.0.1", 0, LIMITS, Cors((), dev=True, methods=("GET",)), count)
    made.server = server
    listener = server.bind()
    serving = asyncio.create_task(server.serve(listener, stopping, drain_seconds=1))
    assert server.bound_port
    made.port = server.bound_port
    yield made
    made.close()
    stopping.set()
    await serving


def request(*headers: bytes, body: bytes = b"") -> bytes:
    return b"\r\n".join([b"POST / HTTP/1.1", b"Host: a", *headers, b"", body])


def test_a_service_has_the_limits_that_are_promised():
    """The tests below have shorter ones."""
    limits = HttpLimits()
    assert (limits.head_seconds, limits.body_stall_seconds) == (PROMISED_HEAD_SECONDS, PROMISED_STALL_SECONDS)


async def test_ordinary_requests_share_a_connection(served: Served):
    client = await served.client()
    for body in (b"", b"abc", b"x" * 100_000):
        client.send(request(b"Content-Length: %d" % len(body), body=body))
        assert (await client.response()).endswith(b"\r\n\r\n%d" % len(body))


@pytest.fixture
def logged(capsys: pytest.CaptureFixture[str]) -> Generator[Callable[[], str]]:
    """What a service writes to its log."""
    root, uvicorn = logging.getLogger(), logging.getLogger("uvicorn.error")
    before = (root.handlers[:], root.level, uvicorn.level)
    configure_logs("test", "info")
    yield lambda: capsys.readouterr().err
    structlog.reset_defaults()
    root.handlers[:] = before[0]
    root.setLevel(before[1])
    uvicorn.setLevel(before[2])


async def test_rubbish_writes_nothing_to_the_log(served: Served, logged: Callable[[], str]):
    for rubbish in (b"\x16\x03\x01 TLS\r\n\r\n", request(b"Connection: upgrade", b"Upgrade: websocket")):
        client = await served.client()
        client.send(rubbish)
        await client.response() if b"Host" in rubbish else await client.until_closed()
    assert logged() == ""


async def test_connection_may_rest_between_requests_longer_than_a_head_may_take(served: Served):
    client = await served.client()
    client.send(request(b"Content-Length: 0"))
    await client.response()
    await asyncio.wait({asyncio.create_task(client._reader.read(1))}, timeout=LIMITS.head_seconds * 2)
    assert not client._reader.at_eof()


@pytest.mark.parametrize(
    "headers",
    [
        [b"X: " + b"a" * 2048],
        [b"X-%d: a" % number for number in range(21)],
        [b"X-%d: %b" % (number, b"a" * 200) for number in range(15)],
    ],
    ids=["one too large", "too many", "too large together"],
)
async def test_too_many_or_too_large_headers_are_431_and_close(served: Served, headers: list[bytes]):
    client = await served.client()
    client.send(request(*headers))
    answer = await client.until_closed()
    assert answer.startswith(b"HTTP/1.1 431 ")
    assert b'"code":"headers_too_large"' in answer
    assert served.app.requests == 0


async def test_head_that_never_ends_is_431_before_it_fills_the_memory(served: Served):
    client = await served.client()
    client.send(b"GET / HTTP/1.1\r\nX: ")
    client.send(b"a" * 10_000)
    assert (await client.until_closed()).startswith(b"HTTP/1.1 431 ")


async def test_url_counts_as_part_of_the_head(served: Served):
    client = await served.client()
    client.send(b"GET /" + b"a" * 3000 + b" HTTP/1.1\r\nHost: a\r\n\r\n")
    assert (await client.until_closed()).startswith(b"HTTP/1.1 431 ")


@pytest.mark.parametrize(
    "sent", [b"", b"GET / HT", b"GET / HTTP/1.1\r\nHost: a\r\n"], ids=["nothing", "part of a line", "no end"]
)
async def test_slow_head_is_closed(served: Served, sent: bytes):
    client = await served.client()
    client.send(sent)
    assert await client.until_closed() == b""
    assert served.app.requests == 0


async def test_slow_head_of_a_later_request_is_closed_too(served: Served):
    client = await served.client()
    client.send(request(b"Content-Length: 0"))
    await client.response()
    client.send(b"GET / HTTP/1.1\r\n")
    assert await client.until_closed() == b""
    assert served.app.requests == 1


async def test_head_that_trickles_gets_no_more_time_for_each_byte(served: Served):
    client = await served.client()
    closed = asyncio.create_task(client.until_closed())
    sent = 0
    for byte in b"GET / HTTP/1.1\r\nX: " + b"a" * 1000:
        client.send(bytes([byte]))
        sent += 1
        await asyncio.wait({closed}, timeout=0.02)
        if closed.done():
            break
    assert closed.done()
    assert sent < 1000


async def test_stalled_body_is_closed_and_the_application_told(served: Served):
    client = await served.client()
    client.send(request(b"Content-Length: 10", body=b"abc"))
    assert await client.until_closed() == b""
    await asyncio.wait_for(served.app.disconnects.wait(), 10)


async def test_body_that_keeps_coming_may_take_longer_than_a_stall(
    served: Served, protocol: type[GuardedProtocol], monkeypatch: pytest.MonkeyPatch
):
    slow = replace(LIMITS, body_stall_seconds=2, body_bytes_per_second=1, body_seconds=60)
    monkeypatch.setattr(protocol, "limits", slow)
    client = await served.client()
    client.send(request(b"Content-Length: 6"))
    answer = asyncio.create_task(client.response())
    for byte in b"012345":
        await asyncio.wait({answer}, timeout=slow.body_stall_seconds / 5)
        client.send(bytes([byte]))
    assert (await answer).endswith(b"6")


@pytest.mark.parametrize(
    "sent",
    [
        b"\r\n\x00\x01\x02 rubbish\r\n\r\n",
        b"GET / HTTP/9.9\r\nHost: a\r\n\r\n",
        b"GET / HTTP/2.0\r\nHost: a\r\n\r\n",
        b"GET / HTTP/1.1\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n",
        b"POST / HTTP/1.0\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
        b"GET\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost : a\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: -1\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\nContent-Length: 4\r\n\r\nabcd",
        b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        gzip.compress(b"GET / HTTP/1.1\r\n\r\n"),
    ],
    ids=["rubbish", "version", "version 2", "no host", "two hosts", "chunks in 1.0", "another coding", "no path", "space before colon", "negative length", "two lengths", "both lengths", "bad chunk", "gzip"],
)  # fmt: skip
async def test_what_is_no_http_is_refused_and_closed(served: Served, sent: bytes):
    client = await served.client()
    client.send(sent)
    answer = await client.until_closed()
    assert answer.startswith((b"HTTP/1.1 400 ", b"HTTP/1.1 431 ")), answer[:100]
    assert b"rubbish" not in answer


@pytest.mark.parametrize("target", [b"http://a/", b"http://a", b"*", b"a:443"])
async def test_a_target_that_is_no_path_is_refused_and_closed(served: Served, target: bytes):
    client = await served.client()
    client.send(b"GET %b HTTP/1.1\r\nHost: a\r\n\r\n" % target)
    assert (await client.until_closed()).startswith(b"HTTP/1.1 400 ")
    assert served.app.requests == 0


async def test_body_behind_an_offer_to_upgrade_never_passes_for_a_request(served: Served):
    client = await served.client()
    smuggled = b"GET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n"
    upgrade = [b"Connection: Upgrade", b"Upgrade: h2c", b"Content-Length: %d" % len(smuggled)]
    client.send(request(*upgrade))
    client.send(smuggled)
    assert (await client.until_closed()).startswith(b"HTTP/1.1 400 ")
    assert served.app.requests == 0


async def test_offer_to_upgrade_without_a_body_is_passed_over(served: Served):
    client = await served.client()
    for _ in range(2):
        client.send(b"GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\n")
        assert (await client.response()).startswith(b"HTTP/1.1 200 ")


async def test_trailers_are_no_headers(served: Served):
    client = await served.client()
    client.send(request(b"Transfer-Encoding: chunked", body=b"3\r\nabc\r\n0\r\nX-Trailer: a\r\n\r\n"))
    assert (await client.response()).endswith(b"\r\n\r\n3")
    assert b"x-trailer" not in dict(served.app.headers)


@pytest.mark.parametrize("endless", [b"X: a\r\n" * 1000, b"X: " + b"a" * 5000], ids=["many", "one"])
async def test_trailers_that_never_end_are_refused_before_they_fill_the_memory(
    served: Served, endless: bytes
):
    client = await served.client()
    client.send(request(b"Transfer-Encoding: chunked", body=b"0\r\n"))
    client.send(endless)
    assert (await client.until_closed()).startswith(b"HTTP/1.1 431 ")


async def test_trailers_count_as_headers(served: Served):
    client = await served.client()
    trailers = b"".join(b"X-%d: a\r\n" % number for number in range(20))
    client.send(request(b"Transfer-Encoding: chunked", body=b"0\r\n" + trailers + b"\r\n"))
    assert (await client.until_closed()).startswith(b"HTTP/1.1 431 ")


async def test_trailers_may_be_as_large_as_a_head(served: Served):
    """Also those that come whole, in one read."""
    client = await served.client()
    trailer = b"X: " + b"a" * LIMITS.head_bytes
    client.send(request(b"Transfer-Encoding: chunked", body=b"0\r\n" + trailer + b"\r\n\r\n"))
    assert (await client.until_closed()).startswith(b"HTTP/1.1 431 ")


async def test_body_that_drips_for_ever_is_closed(served: Served):
    client = await served.client()
    client.send(request(b"Content-Length: 1000000"))
    closed = asyncio.create_task(client.until_closed())
    while not closed.done():
        client.send(b"a")
        await asyncio.wait({closed}, timeout=LIMITS.body_stall_seconds / 4)
    await asyncio.wait_for(served.app.disconnects.wait(), 10)


async def test_body_that_drips_too_slowly_is_closed_although_it_never_stalls(served: Served):
    client = await served.client()
    client.send(request(b"Content-Length: 1000000"))
    closed, sent = asyncio.create_task(client.until_closed()), 0
    while not closed.done():
        client.send(b"a")
        sent += 1
        await asyncio.wait({closed}, timeout=LIMITS.body_stall_seconds * 3 / 4)
    assert sent < 10, "a body that comes fast enough has time for more"
    await asyncio.wait_for(served.app.disconnects.wait(), 10)


async def test_body_that_nobody_reads_for_a_while_is_not_its_sender_s_fault(served: Served):
    """The application reads nothing until it is released, and what waits for it fills the room that there is."""
    client = await served.client()
    await eventually(lambda: len(served.connections) == 1, 10, "a connection")
    type(served.connections[0]).limits = replace(
        LIMITS, body_bytes_per_second=4 * HIGH_WATER_LIMIT, body_seconds=300
    )
    size = 20 * HIGH_WATER_LIMIT
    client.send(b"POST /held HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n" % size + b"a" * size)
    await asyncio.sleep(15 * LIMITS.body_stall_seconds)
    served.app.release.set()
    assert (await client.response()).endswith(b"%d" % size)


@pytest.mark.parametrize("answers", [1, 3])
async def test_what_came_before_rubbish_is_answered_first(served: Served, answers: int):
    client = await served.client()
    client.send(request(b"Content-Length: 1", body=b"a") * answers + b"FOO BAR\r\n\r\n")
    for _ in range(answers):
        assert (await client.response()).startswith(b"HTTP/1.1 200 ")
    assert (await client.until_closed()).startswith(b"HTTP/1.1 400 ")
    assert served.app.requests == answers


async def test_what_came_before_a_broken_body_is_answered_and_the_broken_one_never_begun(served: Served):
    client = await served.client()
    client.send(
        request(b"Content-Length: 1", body=b"a") + request(b"Transfer-Encoding: chunked", body=b"zz\r\n")
    )
    assert (await client.response()).startswith(b"HTTP/1.1 200 ")
    assert (await client.until_closed()).startswith(b"HTTP/1.1 400 ")
    assert served.app.requests == 1


async def test_who_leaves_with_requests_in_the_queue_is_noticed_by_the_first(served: Served):
    client = await served.client()
    client.send(b"GET /wait HTTP/1.1\r\nHost: a\r\n\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n")
    await asyncio.wait_for(served.app.begun.wait(), 10)
    served.close()
    await asyncio.wait_for(served.app.disconnects.wait(), 10)
    assert served.app.requests == 1


@pytest.mark.parametrize(
    "sent",
    [
        b"GET / HTTP/1.1\r\nHost: a\r\nOrigin: %b\r\nX: " % ORIGIN + b"a" * 3000 + b"\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\nOrigin: %b\r\nHost: b\r\n\r\n" % ORIGIN,
    ],
    ids=["431", "400"],
)
async def test_refusals_before_any_application_carry_cors_and_what_all_answers_carry(
    served: Served, sent: bytes
):
    client = await served.client()
    client.send(sent)
    head = (await client.until_closed()).lower()
    assert b"access-control-allow-origin: " + ORIGIN in head
    assert b"vary: origin" in head
    assert b"x-content-type-options: nosniff" in head
    assert b"connection: close" in head


async def test_refusals_of_strangers_carry_no_cors(served: Served):
    client = await served.client()
    client.send(b"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\nOrigin: https://evil.example\r\n\r\n")
    assert b"access-control" not in (await client.until_closed()).lower()


async def test_white_space_around_a_value_is_none_of_it(served: Served):
    client = await served.client()
    client.send(request(b"A: \t b c \t ", b"D:", b"E: \t ", b"F:g", b"Content-Length: 1 ", body=b"x"))
    assert (await client.response()).endswith(b"1")
    given = dict(served.app.headers)
    assert [given[name] for name in (b"a", b"d", b"e", b"f")] == [b"b c", b"", b"", b"g"]


async def test_many_small_chunks_are_a_body_like_others(served: Served):
    client = await served.client()
    client.send(request(b"Transfer-Encoding: chunked"))
    for _ in range(1000):
        client.send(b"1\r\na\r\n")
    client.send(b"0\r\n\r\n")
    assert (await client.response()).endswith(b"\r\n\r\n1000")


async def test_empty_lines_between_requests_get_no_more_time_than_a_head(served: Served):
    client = await served.client()
    client.send(request(b"Content-Length: 0"))
    await client.response()
    client.send(b"\r\n")
    assert await client.until_closed() == b""
    assert served.app.requests == 1


async def test_one_connection_too_many_is_closed_and_room_is_made_when_one_leaves(served: Served):
    held = [await served.client() for _ in range(LIMITS.connections)]
    for client in held:
        client.send(b"GET /wait HTTP/1.1\r\nHost: a\r\n\r\n")
    await eventually(lambda: served.app.requests == len(held), 10, "all of them served")
    refused = await served.client()
    assert await refused.until_closed() == b""
    assert served.refused == 1
    held[0].writer.transport.abort()
    await asyncio.wait_for(served.app.disconnects.wait(), 10)
    welcome = await served.client()
    welcome.send(request(b"Content-Length: 0"))
    assert (await welcome.response()).startswith(b"HTTP/1.1 200 ")


HELD = b"GET /held HTTP/1.1\r\nHost: a\r\n\r\n"
SHORT = b"GET /%d HTTP/1.1\r\nHost: a\r\n\r\n"


@pytest.mark.parametrize("more", [8, 9, 2000])
async def test_few_requests_wait_behind_another_and_what_is_beyond_them_is_refused_in_its_turn(
    served: Served, more: int
):
    """Each is ten times as large once it is read, and thousands come in one read."""
    client = await served.client()
    client.send(HELD + b"".join(SHORT % number for number in range(more)))
    await eventually(served.app.begun.is_set, 10, "the first one")
    served.app.release.set()
    answers = [await client.response() for _ in range(LIMITS.pipelined + 1)]
    assert {answer[:15] for answer in answers} == {b"HTTP/1.1 200 OK"}
    if more > LIMITS.pipelined:
        refusal = await client.until_closed()
        assert refusal.startswith(b"HTTP/1.1 400 ")
        assert b"Too many requests wait" in refusal
    assert served.app.requests == LIMITS.pipelined + 1


async def test_those_who_wait_on_all_connections_are_counted_together_until_they_are_answered_or_gone(
    served: Served,
):
    first, second, third = [await served.client() for _ in range(3)]
    for client in (first, second):
        served.app.begun.clear()
        client.send(HELD + SHORT % 1 * 6)
        await eventually(served.app.begun.is_set, 10, "its first one")
    served.app.begun.clear()
    third.send(HELD + SHORT % 1 * 6)
    await eventually(served.app.begun.is_set, 10, "its first one")
    assert served.waiting == 12 + FEW_PIPELINED
    second.writer.transport.abort()
    served.app.release.set()
    for _ in range(7):
        assert (await first.response()).startswith(b"HTTP/1.1 200 ")
    for _ in range(1 + FEW_PIPELINED):
        assert (await third.response()).startswith(b"HTTP/1.1 200 ")
    assert (await third.until_closed()).startswith(b"HTTP/1.1 400 ")
    await eventually(lambda: served.waiting == 0, 10, "the second is seen to have left")


async def test_bodies_behind_others_are_counted_together_until_they_are_read_or_gone(served: Served):
    """One read of each connection may bring much, whatever waits before it."""
    post = b"POST /%d HTTP/1.1\r\nHost: a\r\nContent-Length: 40000\r\n\r\n"
    clients = [await served.client() for _ in range(5)]
    await eventually(lambda: len(served.connections) == 5, 10, "all of them there")
    type(served.connections[0]).limits = replace(
        LIMITS, pipelined_bytes_in_all=90_000, body_stall_seconds=60, body_seconds=60
    )
    for client in clients[:3]:
        client.send(HELD + post % 1 + b"x" * 30_000)
    await eventually(lambda: served.waiting_bytes == 90_000, 10, "all that was sent")
    clients[3].send(HELD + post % 1 + b"x" * FEW_PIPELINED_BYTES)
    await eventually(lambda: served.waiting_bytes == 90_000 + FEW_PIPELINED_BYTES, 10, "little of the fourth")
    clients[4].send(HELD + post % 1 + b"x" * (FEW_PIPELINED_BYTES + 1))
    await eventually(lambda: served.app.requests == 5, 10, "the one before what is too much")
    assert served.waiting_bytes == 90_000 + FEW_PIPELINED_BYTES
    clients[0].writer.transport.abort()
    served.app.release.set()
    for client, missing in zip(clients[1:4], (10_000, 10_000, 40_000 - FEW_PIPELINED_BYTES), strict=True):
        client.send(b"x" * missing)
        assert (await client.response()).startswith(b"HTTP/1.1 200 ")
        assert (await client.response()).endswith(b"\r\n40000")
    await clients[4].response()
    refusal = await clients[4].until_closed()
    assert refusal.startswith(b"HTTP/1.1 400 ")
    assert b"Too many requests wait" in refusal
    await eventually(lambda: served.waiting_bytes == 0, 10, "the first is seen to have left")


async def test_little_of_a_body_is_read_while_the_request_before_it_is_answered(served: Served):
    """However often that one looks for its client."""
    client = await served.client()
    await eventually(lambda: served.connections, 10, "it is there")
    type(served.connections[0]).limits = replace(LIMITS, body_stall_seconds=60, body_seconds=60)
    client.send(
        b"GET /asks HTTP/1.1\r\nHost: a\r\n\r\n" + request(b"Content-Length: 9000000", body=b"x" * 8_000_000)
    )
    await eventually(lambda: served.app.asked > 100, 10, "many looks")
    (connection,) = served.connections
    assert len(connection.cycle.body) < 1_000_000
    served.app.release.set()
    await client.response()
    client.send(b"x" * 1_000_000)
    assert (await client.response()).endswith(b"\r\n9000000")


async def test_nothing_of_a_request_is_kept_once_it_is_answered(served: Served):
    """Its connection may rest for long."""
    client = await served.client()
    client.send(
        b"POST /early HTTP/1.1\r\nHost: a\r\nX: %b\r\nContent-Length: 60000\r\n\r\n%b"
        % (b"y" * 999, b"x" * 60_000)
    )
    await client.response()
    (connection,) = served.connections
    await eventually(lambda: connection.cycle.scope == {"method": "POST"}, 10, "its head is let go")
    assert (connection.cycle.body, connection.headers) == (b"", [])


@pytest.fixture
def short_rest(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("juinie_shared.runtime.http_server.KEEP_ALIVE_SECONDS", 3)


@pytest.mark.parametrize(
    ("framing", "body"),
    [(b"Content-Length: 4", b"abcd"), (b"Transfer-Encoding: chunked", b"4\r\nabcd\r\n0\r\n\r\n")],
    ids=["of a length", "chunked"],
)
@pytest.mark.usefixtures("short_rest")
async def test_a_connection_whose_body_was_whole_after_its_answer_rests_no_longer_than_others(
    served: Served, framing: bytes, body: bytes
):
    client = await served.client()
    client.send(b"POST /early HTTP/1.1\r\nHost: a\r\nX: %b\r\n%b\r\n\r\n" % (b"y" * 999, framing))
    await client.response()
    (connection,) = served.connections
    client.send(body)
    await eventually(lambda: connection.headers == [], 10, "its head is let go")
    assert await client.until_closed() == b""


async def test_a_request_is_begun_in_nothing_that_was_around_the_one_before(served: Served):
    client = await served.client()
    client.send(SHORT % 1 * 3)
    for _ in range(3):
        await client.response()
    assert served.app.around == ["none"] * 3


@pytest.fixture
def few_descriptors() -> Generator[int]:
    """For so many connections, and what a process needs besides."""
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (OWN_DESCRIPTORS + 3, before[1]))
    yield 3
    resource.setrlimit(resource.RLIMIT_NOFILE, before)


async def test_no_more_connections_are_held_than_there_are_descriptors(few_descriptors: int, served: Served):
    """They are closed while some are left, and not left to wait while none is."""
    held = [await served.client() for _ in range(few_descriptors)]
    for client in held:
        client.send(b"GET /wait HTTP/1.1\r\nHost: a\r\n\r\n")
    await eventually(lambda: served.app.requests == len(held), 10, "all of them served")
    assert await (await served.client()).until_closed() == b""
    assert served.refused == 1


@pytest.mark.parametrize("host", [b"a b", b"u@a", b"a/b", b"a,b", b"a\xff", b"a\\b", b"a?b", b"a#b", b"<a>"])
async def test_host_that_can_be_none_is_refused(served: Served, host: bytes):
    client = await served.client()
    client.send(b"GET / HTTP/1.1\r\nHost: %b\r\n\r\n" % host)
    assert (await client.until_closed()).startswith(b"HTTP/1.1 400 ")


@pytest.mark.parametrize(
    "host", [b"", b"a", b"a.example:8000", b"127.0.0.1", b"[::1]:80", b"x_y-z", b"xn--bcher-kva.example"]
)
async def test_host_that_can_be_one_is_taken(served: Served, host: bytes):
    client = await served.client()
    client.send(b"GET / HTTP/1.1\r\nHost: %b\r\n\r\n" % host)
    answer = await client.response()
    assert answer.startswith(b"HTTP/1.1 200 ")
    assert answer.lower().count(b"x-content-type-options: nosniff") == 1


async def test_taken_port_is_one_clear_line():
    first = HttpServer(Application(), "127.0.0.1", 0)
    listener = first.bind()
    assert first.bound_port
    with listener:
        listener.listen()
        with pytest.raises(
            PortTaken, match=f"Port {first.bound_port} on 127.0.0.1 is taken by another program"
        ):
            HttpServer(Application(), "127.0.0.1", first.bound_port).bind()


async def test_stop_does_not_wait_for_who_never_ends():
    app, stopping = Application(), asyncio.Event()
    server = HttpServer(app, "127.0.0.1", 0)
    serving = asyncio.create_task(server.serve(server.bind(), stopping, drain_seconds=1))
    reader, writer = await asyncio.open_connection("127.0.0.1", server.bound_port)
    writer.write(request(b"Content-Length: 10", body=b"abc"))
    while not app.requests:
        await asyncio.wait({serving}, timeout=0.01)
    stopping.set()
    await asyncio.wait_for(serving, 10)
    assert await Client(reader, writer).until_closed() == b"", "a cut, which is repeated, and no 500"
    writer.close()


# ---- a crowd ------------------------------------------------------------------------------------------------------------


@pytest.fixture
async def protocol(served: Served) -> type[GuardedProtocol]:
    """The server's own, when nobody is there."""
    client = await served.client()
    await eventually(lambda: served.connections, 10, "the first one")
    (protocol,) = {type(connection) for connection in served.connections}
    client.writer.close()
    await eventually(lambda: not served.connections, 10, "it has left")
    return protocol


@pytest.fixture
async def crowd(
    served: Served, protocol: type[GuardedProtocol], monkeypatch: pytest.MonkeyPatch
) -> AsyncGenerator[list[Client]]:
    """Three times as many connections as are read in one turn. When all have left, none has a place on the doorstep."""
    monkeypatch.setattr(protocol, "limits", replace(LIMITS, connections=1000, head_seconds=10))
    clients = [await served.client() for _ in range(3 * FIRST_AT_ONCE)]
    await eventually(lambda: len(served.connections) == len(clients), 10, "all of them")
    yield clients
    for client in clients:
        client.writer.transport.abort()
    await eventually(lambda: not served.connections, 10, "all have left")
    assert places_of(protocol) == (0, [])


def places_of(protocol: type[GuardedProtocol]) -> tuple[int, list[int]]:
    """How many are inside, and which descriptors wait."""
    return protocol.doorstep._inside, [*protocol.doorstep._waiting]


def all_send(crowd: list[Client], data: bytes) -> None:
    """In one moment: no turn of the loop comes between."""
    for client in crowd:
        client.send(data)


async def some_wait(served: Served) -> list[GuardedProtocol]:
    """Those who wait to be let in, as soon as there are some."""
    async with asyncio.timeout(10):
        while not (waiting := [connection for connection in served.connections if connection._stays_out()]):
            await asyncio.sleep(0)
    return waiting


@pytest.mark.parametrize("body", [0, 100_000], ids=["a few bytes", "more than is read at once"])
async def test_of_a_crowd_that_comes_at_once_a_few_are_read_in_each_turn(
    served: Served, crowd: list[Client], body: int
):
    begun = list[int]()
    with turns() as turn:
        all_send(crowd, request(b"Content-Length: %d" % body, body=b"x" * body))
        last, at = 0, turn()
        while served.app.requests < len(crowd):
            await asyncio.sleep(0)
            if turn() != at:
                begun.append(served.app.requests - last)
                last, at = served.app.requests, turn()
    assert max(begun) <= 2 * FIRST_AT_ONCE
    assert [await client.response() for client in crowd]
    all_send(crowd, request())
    assert [await client.response() for client in crowd], "and are read as they come, afterwards"
    assert places_of(type(served.connections[0])) == (0, [])


async def test_who_waits_to_be_read_is_answered_when_the_server_stops(served: Served, crowd: list[Client]):
    all_send(crowd, request())
    assert await some_wait(served)
    type(served.connections[0]).last_call = True
    for connection in served.connections:
        connection.shutdown()
    for client in crowd:
        assert b"connection: close" in (await client.response()).lower()


async def test_who_was_cut_while_it_waited_to_be_read_is_not_read(served: Served, crowd: list[Client]):
    all_send(crowd, request())
    waiting = await some_wait(served)
    for connection in waiting:
        connection.transport.abort()
    answers = [await client.until_read() for client in crowd]
    assert answers.count(b"") == len(waiting)
    assert served.app.requests == len(crowd) - len(waiting)


class Shut(Doorstep):
    """Lets nobody in, until it is told to."""

    @override
    def come(self) -> int | None:
        return None

    @override
    def _let_in(self) -> None:
        pass


@pytest.fixture
async def doorstep(
    protocol: type[GuardedProtocol], monkeypatch: pytest.MonkeyPatch
) -> AsyncGenerator[Doorstep]:
    monkeypatch.setattr(protocol, "doorstep", shut := Shut(1))
    yield shut
    shut.close()


async def test_who_waits_to_be_read_is_not_taken_for_slow(
    served: Served, protocol: type[GuardedProtocol], doorstep: Doorstep, monkeypatch: pytest.MonkeyPatch
):
    async def come(data: bytes) -> tuple[Client, GuardedProtocol]:
        known = {*served.connections}
        client = await served.client()
        await eventually(lambda: {*served.connections} - known, 10, "the connection")
        (connection,) = {*served.connections} - known
        await eventually(connection._stays_out, 10, "it waits")
        client.send(data)
        return client, connection

    monkeypatch.setattr(protocol, "limits", replace(LIMITS, head_seconds=3.0))
    asks, waits = await come(request())
    silent, _ = await come(b"")
    assert await silent.until_closed() == b"", "who says nothing is not waited for"
    assert waits._stays_out()
    Doorstep._let_in(doorstep)
    assert await asks.response()
    assert places_of(protocol) == (0, [])


async def test_where_the_system_has_no_place_for_who_waits_all_are_read_as_they_come(
    served: Served, doorstep: Doorstep
):
    doorstep.close()
    client = await served.client()
    await eventually(lambda: served.connections, 10, "the connection")
    await asyncio.sleep(0.05)
    client.send(request())
    assert await client.response()


async def test_who_leaves_without_having_asked_is_forgotten(
    served: Served, protocol: type[GuardedProtocol], crowd: list[Client]
):
    assert await some_wait(served)
    for client in crowd:
        client.writer.transport.abort()
    await eventually(lambda: not served.connections, 10, "all have left")
    assert places_of(protocol) == (0, [])
    again = [await served.client() for _ in crowd]
    all_send(again, request())
    assert [await client.response() for client in again], "their descriptors are others' now"
    for client in again:
        client.writer.transport.abort()


async def test_a_request_that_a_sibling_has_read_is_not_overtaken_by_what_follows_it(
    served: Served, crowd: list[Client]
):
    """It comes with its connection, on which the next one lies already, while many others wait to be read."""
    (protocol,) = {type(connection) for connection in served.connections}
    old = served.connections[0]
    make = partial(protocol, config=old.config, server_state=old.server_state, app_state={}, _loop=old.loop)
    ours, theirs = socket.socketpair()
    theirs.sendall(request(b"Content-Length: 2", body=b"xx"))
    ours.setblocking(False)
    all_send(crowd, request())
    await some_wait(served)
    handed = Handed(ours, request(), 1)
    await old.loop.connect_accepted_socket(lambda: make().take_over(handed), ours)
    reader, writer = await asyncio.open_connection(sock=theirs)
    client = Client(reader, writer)
    answers = [await client.response() for _ in range(2)]
    writer.transport.abort()
    assert [answer[-1:] for answer in answers] == [b"0", b"2"]
