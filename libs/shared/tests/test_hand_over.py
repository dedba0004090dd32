"""Connections pass from one process to another, with the request on them, and their clients see nothing of it."""

import asyncio
import logging
import os
import socket
from collections.abc import AsyncGenerator, Generator
from contextlib import ExitStack, asynccontextmanager, closing, suppress
from functools import partial
from itertools import chain
from typing import Any

import pytest

from juinie_shared.runtime.hand_over import LAST_HOP, Inbox, hand, handed, pass_on
from juinie_shared.runtime.http_server import HttpLimits, HttpServer
from juinie_shared.runtime.port import take_port
from juinie_shared.runtime.sibling import Sibling
from juinie_testkit.waits import eventually

HERE = b"GET /here HTTP/1.1\r\nHost: x\r\n\r\n"
GIVEN = b"GET /given HTTP/1.1\r\nHost: x\r\n\r\n"


class Application:
    """Says which server it is of, and shows the request. What is for `/given` is handed to the next one, once."""

    def __init__(self, index: int, count: int) -> None:
        self.index, self.count = index, count
        self.given = 0
        self.refused = 0

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        connection = scope["extensions"]["juinie.transport"]
        if scope["path"] == "/large":
            await _send_large(send)
            return
        if scope["path"] == "/given" and connection["hops"] == 0:
            if connection["hand_over"]((self.index + 1) % self.count, 1):
                self.given += 1
                while (await receive())["type"] != "http.disconnect":
                    pass
                return
            self.refused += 1
        body, more = b"", True
        while more:
            message = await receive()
            body, more = body + message.get("body", b""), message.get("more_body", False)
        shown = [
            scope["method"],
            scope["raw_path"],
            scope["query_string"],
            scope["headers"],
            connection["hops"],
            body,
        ]
        text = f"{self.index} {shown}".encode()
        head = {
            "type": "http.response.start",
            "status": 200,
            "headers": [(b"content-length", b"%d" % len(text))],
        }
        await send(head)
        await send({"type": "http.response.body", "body": text})


async def _send_large(send: Any) -> None:
    """More than a socket takes at once; all of it waits in the transport."""
    length = 8 * 1024 * 1024
    head = {"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"%d" % length)]}
    await send(head)
    await send({"type": "http.response.body", "body": b"x" * length})


class Client:
    """A connection to the first server."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer

    async def answer(self) -> bytes:
        head = await asyncio.wait_for(self.reader.readuntil(b"\r\n\r\n"), 10)
        length = int(head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0])
        return await asyncio.wait_for(self.reader.readexactly(length), 10)

    async def ask(self, request: bytes) -> bytes:
        self.writer.write(request)
        return await self.answer()


class Siblings:
    """Servers that are siblings, in one process."""

    def __init__(self, inboxes: list[Inbox]) -> None:
        self.inboxes = inboxes
        self.clients: list[Client] = []
        self.applications = [Application(index, len(inboxes)) for index in range(len(inboxes))]
        self.room = [True for _ in inboxes]
        self.listeners = [take_port("127.0.0.1", 0) for _ in inboxes]
        self.stopping = [asyncio.Event() for _ in inboxes]
        self.servers = [
            HttpServer(
                self.applications[index],
                "127.0.0.1",
                0,
                sibling=self._sibling(index),
                has_room=partial(self.room.__getitem__, index),
            )
            for index in range(len(inboxes))
        ]

    def _sibling(self, index: int) -> Sibling:
        others = tuple(os.dup(inbox.others_end.fileno()) for inbox in self.inboxes)
        own, listener = os.dup(self.inboxes[index].own.fileno()), os.dup(self.listeners[index].fileno())
        return Sibling(index, len(self.inboxes), os.getpid(), listener, -1, -1, "", own, others)

    async def serve(self, index: int) -> None:
        server = self.servers[index]
        with closing(server.bind()) as listener:
            await server.serve(listener, self.stopping[index], 1, 0.5 if index == 0 else 0)

    async def connect(self) -> Client:
        port = self.listeners[0].getsockname()[1]
        client = Client(*await asyncio.open_connection("127.0.0.1", port))
        self.clients.append(client)
        return client


@pytest.fixture
def inboxes() -> Generator[list[Inbox]]:
    with ExitStack() as stack:
        yield [stack.enter_context(closing(Inbox.make())) for _ in range(2)]


@pytest.fixture
async def two(inboxes: list[Inbox]) -> AsyncGenerator[Siblings]:
    async with serving_all(inboxes) as made:
        yield made


@pytest.fixture
async def four() -> AsyncGenerator[Siblings]:
    with ExitStack() as stack:
        inboxes = [stack.enter_context(closing(Inbox.make())) for _ in range(4)]
        async with serving_all(inboxes) as made:
            yield made


@asynccontextmanager
async def serving_all(inboxes: list[Inbox]) -> AsyncGenerator[Siblings]:
    made = Siblings(inboxes)
    async with asyncio.TaskGroup() as tasks:
        serving = [tasks.create_task(made.serve(index)) for index in range(len(inboxes))]
        yield made
        for client in made.clients:
            client.writer.transport.abort()
        for each in serving:
            each.cancel()
    for listener in made.listeners:
        listener.close()


async def test_a_sibling_answers_and_the_client_sees_nothing_of_it(two: Siblings):
    client = await two.connect()
    assert (await client.ask(HERE)).startswith(b"0 ")
    assert (await client.ask(GIVEN)).startswith(b"1 ")
    assert two.applications[0].given == 1


async def test_the_sibling_sees_the_request_as_it_was_sent(two: Siblings):
    request = (
        b"GET /given?a=%20&b=%C3%A4&c HTTP/1.1\r\nHost: x:1\r\nX-One:  a b \r\nx-one: c\r\nLast-Event-ID: 7\r\n"
        b"Authorization: Bearer \xe4\r\n\r\n"
    )
    client = await two.connect()
    handed_on = await client.ask(request)
    client = await two.connect()
    as_it_came = await client.ask(request.replace(b"/given", b"/here"))
    assert handed_on[1:].replace(b", 1, b''", b", 0, b''") == as_it_came[1:].replace(b"/here", b"/given")


async def test_what_the_client_sends_next_is_answered_by_the_sibling_and_may_be_handed_back(two: Siblings):
    client = await two.connect()
    for number in range(10):
        assert (await client.ask(GIVEN)).startswith(b"%d " % ((number + 1) % 2))
    assert [each.given for each in two.applications] == [5, 5]
    assert (await client.ask(HERE)).startswith(b"0 ")


async def test_what_the_client_has_sent_meanwhile_is_answered_afterwards(two: Siblings):
    accepting = socket.create_server(("127.0.0.1", 0))
    with accepting, socket.create_connection(accepting.getsockname()) as peer:
        accepted, _ = accepting.accept()
        peer.sendall(HERE)
        peer.setblocking(False)
        client = Client(*await asyncio.open_connection(sock=peer))
        two.clients.append(client)
        with accepted:
            assert hand(two.inboxes[1].others_end, accepted.fileno(), GIVEN, 1)
        answers = [await client.answer(), await client.answer()]
    assert [b"/given" in answers[0], b"/here" in answers[1]] == [True, True]


@pytest.mark.parametrize("behind", [HERE, b"GET /he", GIVEN], ids=["a request", "a part of one", "another"])
async def test_a_connection_with_more_on_it_stays(two: Siblings, behind: bytes):
    client = await two.connect()
    client.writer.write(GIVEN + behind)
    assert (await client.answer()).startswith(b"0 ")
    assert two.applications[0].refused == 1
    if behind != b"GET /he":
        assert (await client.answer())[:1] in (b"0", b"1")


@pytest.mark.parametrize(
    "body",
    [b"Content-Length: 3\r\n\r\nabc", b"Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n", b"Content-Length: 0\r\n\r\n"],
    ids=["of a length", "chunked", "empty"],
)  # fmt: skip
async def test_a_request_with_a_body_stays(two: Siblings, body: bytes):
    client = await two.connect()
    answer = await client.ask(b"POST /given HTTP/1.1\r\nHost: x\r\n" + body)
    assert answer.startswith(b"0 ")
    assert two.applications[0].refused == 1
    assert (b"abc" in answer) == (b"abc" in body)


async def test_a_connection_stays_where_the_inbox_is_full(two: Siblings, monkeypatch: pytest.MonkeyPatch):
    client = await two.connect()
    assert (await client.ask(HERE)).startswith(b"0 ")
    left, right = socket.socketpair()
    with left, right, closing(Inbox.make()) as full:
        while hand(full.others_end, left.fileno(), b"x" * 4096, 1):
            pass
        (connection,) = two.servers[0]._connections()  # pyright: ignore[reportPrivateUsage]
        monkeypatch.setattr(type(connection), "inboxes", [full.others_end] * 2)
        assert (await client.ask(GIVEN)).startswith(b"0 ")
        monkeypatch.undo()
    assert (await client.ask(GIVEN)).startswith(b"1 ")
    assert (two.applications[0].refused, two.applications[0].given) == (1, 1)


async def test_a_connection_stays_while_its_process_ends(two: Siblings):
    client = await two.connect()
    assert (await client.ask(HERE)).startswith(b"0 ")
    two.stopping[0].set()
    await asyncio.sleep(0)
    with suppress(ConnectionError, asyncio.IncompleteReadError):
        assert (await client.ask(GIVEN)).startswith(b"0 ")
    assert two.applications[0].given == 0


async def test_a_connection_stays_while_an_answer_before_is_not_sent_yet(two: Siblings):
    client = await two.connect()
    client.writer.write(b"GET /large HTTP/1.1\r\nHost: x\r\n\r\n")
    head = await client.reader.readuntil(b"\r\n\r\n")
    client.writer.write(GIVEN)
    await eventually(lambda: two.applications[0].refused, 10, "it was tried")
    length = int(head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0])
    assert await client.reader.readexactly(length) == b"x" * length
    assert (await client.answer()).startswith(b"0 ")


async def test_one_that_is_full_hands_on_what_it_is_handed(two: Siblings):
    two.servers[1]._limits = HttpLimits(connections=0)  # pyright: ignore[reportPrivateUsage]
    client = await two.connect()
    assert (await client.ask(GIVEN)).startswith(b"0 ")
    assert two.applications[0].given == 1


@pytest.mark.parametrize("with_room", [0, 2, 3])
async def test_what_many_have_no_room_for_goes_to_the_one_that_has(four: Siblings, with_room: int):
    """Wherever it came, and whoever should have it."""
    four.room[:] = [index == with_room for index in range(4)]
    for _ in range(5):
        client = await four.connect()
        assert (await client.ask(GIVEN)).startswith(b"%d " % with_room)
    assert four.applications[0].given == 5


async def test_what_nobody_has_room_for_is_answered_by_whoever_had_it_last(four: Siblings):
    four.room[:] = [False] * 4
    client = await four.connect()
    answer = await client.ask(GIVEN)
    assert answer.startswith(b"0 ")
    assert b", 4, b''" in answer  # hops: once round


async def test_one_that_ends_hands_on_what_it_is_handed(two: Siblings):
    client = await two.connect()
    assert (await client.ask(GIVEN)).startswith(b"1 ")
    (connection,) = two.servers[1]._connections()  # pyright: ignore[reportPrivateUsage]
    type(connection).last_call = True
    client = await two.connect()
    assert (await client.ask(GIVEN)).startswith(b"0 ")


async def test_many_at_once_are_all_answered(two: Siblings):
    clients = [await two.connect() for _ in range(200)]
    answers = await asyncio.gather(*(client.ask(GIVEN) for client in clients))
    assert {answer[:1] for answer in answers} <= {b"0", b"1"}
    assert two.applications[0].given + two.applications[0].refused == 200
    assert two.applications[0].given > 0


async def test_a_client_that_leaves_while_it_is_handed_over_is_forgotten(
    two: Siblings, caplog: pytest.LogCaptureFixture
):
    with caplog.at_level(logging.WARNING):
        for _ in range(20):
            client = await two.connect()
            client.writer.write(GIVEN)
            await asyncio.sleep(0)
            client.writer.transport.abort()
        await eventually(lambda: two.applications[0].given > 0, 10, "some were handed over")
        await eventually(lambda: not any(map(_open_connections, two.servers)), 10, "none is left")
    assert not caplog.records


def _open_connections(server: HttpServer) -> int:
    return len(server._connections())  # pyright: ignore[reportPrivateUsage]


def test_what_lies_in_the_inbox_of_one_that_is_away_goes_to_the_others_by_turns(inboxes: list[Inbox]):
    away = Inbox.make()
    turn, pairs = 0, [socket.socketpair() for _ in range(4)]
    for number, (own, _) in enumerate(pairs):
        assert hand(away.others_end, own.fileno(), b"%d" % number, 1)
        turn = pass_on(away.own, [inbox.others_end for inbox in inboxes], turn)
    arrived = [list(handed(inbox.own)) for inbox in inboxes]
    got = [[(one.head, one.hops) for one in some] for some in arrived]
    for one in chain.from_iterable(arrived):
        one.connection.close()
    assert got == [[(b"0", LAST_HOP), (b"2", LAST_HOP)], [(b"1", LAST_HOP), (b"3", LAST_HOP)]]
    away.close()
    for pair in pairs:
        for end in pair:
            end.close()


def test_what_nobody_can_take_is_closed():
    away = Inbox.make()
    own, peer = socket.socketpair()
    with closing(away), peer:
        assert hand(away.others_end, own.fileno(), b"", 1)
        own.close()
        pass_on(away.own, [])
        peer.settimeout(10)
        assert peer.recv(1) == b""


def test_what_nobody_reads_is_not_handed_over():
    inbox = Inbox.make()
    own, peer = socket.socketpair()
    with own, peer, closing(inbox):
        inbox.own.close()
        assert not hand(inbox.others_end, own.fileno(), b"", 1)
