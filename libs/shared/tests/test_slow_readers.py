"""Clients that do not take what they are sent: cut in time, and bounded together. Tried over raw sockets."""

import asyncio
import socket
from collections.abc import AsyncGenerator
from contextlib import ExitStack, asynccontextmanager, contextmanager
from functools import partial
from typing import Any

import pytest

from juinie_shared.runtime.http_server import HttpLimits, HttpServer
from juinie_shared.runtime.slow_readers import FLOOR_BYTES_PER_SECOND, LOOKS, Reader, SlowReaders
from juinie_testkit.waits import eventually

ANSWER = b"x" * 4 * 1024 * 1024
REQUEST = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"
SECONDS = 10.0
FLOOR = int(FLOOR_BYTES_PER_SECOND * SECONDS)


# ---- the rule --------------------------------------------------------------------------------------------------------


def looks(*found: tuple[float, int, int]) -> list[bool]:
    """What each look at a client says: the time, and what it has taken and what waits for it."""
    reader = Reader()
    return [reader.is_slow(taken, waiting, now, SECONDS) for now, taken, waiting in found]


def test_who_takes_nothing_has_its_time() -> None:
    assert looks((0, 500, 30), (9, 500, 30), (10, 500, 30)) == [False, False, True]


def test_who_takes_all_that_waited_has_its_time_again() -> None:
    assert looks((0, 500, 30), (9, 530, 9000), (18, 530, 9000), (19, 530, 9000)) == [
        False,
        False,
        False,
        True,
    ]


def test_who_takes_the_floor_is_waited_for_however_much_there_is() -> None:
    assert not any(looks(*((second, second * FLOOR // 9, 10**6) for second in range(60))))


def test_who_takes_less_than_the_floor_is_slow_although_it_takes_something() -> None:
    assert looks(*((second, second * FLOOR // 11, 10**6) for second in range(11))) == [*[False] * 10, True]


def test_who_is_found_slow_has_its_time_again() -> None:
    assert looks((0, 0, 1), (10, 0, 1), (11, 0, 1), (20, 0, 1), (21, 0, 1)) == [
        False,
        True,
        False,
        False,
        True,
    ]


def test_who_has_all_is_not_behind() -> None:
    reader = Reader()
    assert not reader.is_slow(0, 1, 0, SECONDS)
    reader.has_all()
    assert not reader.is_slow(1, 1, 10, SECONDS)


class Looked:
    """A connection that counts how often it is looked at."""

    def __init__(self) -> None:
        self.reader, self.looks = Reader(), 0

    @property
    def transport(self) -> Any:
        self.looks += 1
        return Resting()

    def on_slow(self) -> None:
        raise AssertionError


class Resting:
    """A transport on which nothing waits."""

    def get_extra_info(self, _name: str) -> None: ...
    def get_write_buffer_size(self) -> int:
        return 0


async def test_looks_at_many_are_spread_and_each_has_its_own() -> None:
    connections = [Looked() for _ in range(1000)]
    connections[999].reader.gone = True
    readers = SlowReaders[Any](lambda: connections, LOOKS * 0.5, None)
    looking = asyncio.create_task(readers.run())
    await asyncio.sleep(0)
    assert sum(connection.looks for connection in connections) == 100  # and then others have their turn
    await eventually(
        lambda: min(connection.looks for connection in connections[:999]) > 0, 10, "a look at each"
    )
    assert max(connection.looks for connection in connections) <= 2
    assert connections[999].looks == 0
    looking.cancel()


# ---- on sockets ------------------------------------------------------------------------------------------------------


class Application:
    """Answers each request with 4 MiB. `slow` counts who was found to be, where it asked to be told."""

    def __init__(self, tell: bool = False) -> None:
        self.slow, self.tell = 0, tell

    async def __call__(self, scope: Any, _receive: Any, send: Any) -> None:
        if self.tell:
            scope["extensions"]["juinie.transport"]["when_slow"](self._count)
        headers = [(b"content-length", b"%d" % len(ANSWER))]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": ANSWER})

    def _count(self) -> None:
        self.slow += 1


@asynccontextmanager
async def serving(app: Application, **limits: Any) -> AsyncGenerator[HttpServer]:
    server, stopping = HttpServer(app, "127.0.0.1", 0, HttpLimits(**limits)), asyncio.Event()
    listener = server.bind()
    task = asyncio.create_task(server.serve(listener, stopping, drain_seconds=1))
    try:
        yield server
    finally:
        stopping.set()
        await task


@contextmanager
def asking(server: HttpServer) -> Any:
    """A client that has asked, and reads nothing by itself."""
    with socket.socket() as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        client.connect(("127.0.0.1", server.bound_port))
        client.sendall(REQUEST)
        client.setblocking(False)
        yield client


def is_reset(client: socket.socket) -> bool:
    return client.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) != 0


def open_connections(server: HttpServer) -> int:
    return len(server._connections())


@pytest.mark.parametrize("requests", [1, 20])
async def test_an_answer_that_nobody_reads_is_held_for_a_time_and_then_given_up(requests: int) -> None:
    async with serving(Application(), unread_seconds=0.5) as server:
        with asking(server) as client:
            for _ in range(requests - 1):
                client.sendall(REQUEST)
            await eventually(lambda: is_reset(client), 30, "the connection is reset")
            await eventually(lambda: open_connections(server) == 0, 30, "the server has forgotten it")


async def test_a_client_that_reads_steadily_gets_its_answer_however_long_it_takes() -> None:
    async with serving(Application(), unread_seconds=0.5) as server:
        with asking(server) as client:
            size, loop = 0, asyncio.get_running_loop()
            while size <= len(ANSWER):  # the head comes on top
                received = await asyncio.wait_for(loop.sock_recv(client, 16 * 1024), 10)
                assert received
                size += len(received)
                await asyncio.sleep(0.005)


async def test_an_application_may_see_to_it_itself() -> None:
    app = Application(tell=True)
    async with serving(app, unread_seconds=0.2) as server:
        with asking(server) as client:
            await eventually(lambda: app.slow >= 2, 30, "it was told, and told again")
            assert not is_reset(client)


async def test_what_waits_for_all_together_is_bounded_and_the_longest_wait_ends_first() -> None:
    async with serving(Application(), unread_bytes=3 * len(ANSWER)) as server:
        with ExitStack() as stack:
            clients = list[socket.socket]()
            for number in range(8):
                clients.append(stack.enter_context(asking(server)))
                await eventually(partial(has_begun, clients[-1]), 30, f"answer {number} has begun")
                assert held_bytes(server) <= 3 * len(ANSWER)
            assert [is_reset(client) for client in clients] == [True] * 5 + [False] * 3


def held_bytes(server: HttpServer) -> int:
    return sum(connection.transport.get_write_buffer_size() for connection in server._connections())


def has_begun(client: socket.socket) -> bool:
    try:
        return bool(client.recv(1, socket.MSG_PEEK))
    except BlockingIOError:
        return False
