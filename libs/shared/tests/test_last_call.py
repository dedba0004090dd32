"""The last call: a server that stops fails no request of a client that takes the answers' word for it.

Over raw sockets: whoever sends a request before it has been told that the connection ends gets its answer.
"""

import asyncio
from collections.abc import AsyncGenerator
from typing import Any

import pytest

from juinie_shared.runtime.http_server import HttpServer
from juinie_testkit.waits import eventually

REQUEST = b"GET /at-once HTTP/1.1\r\nHost: a\r\n\r\n"
HELD = b"GET /held HTTP/1.1\r\nHost: a\r\n\r\n"
CLOSES = b"\r\nconnection: close\r\n"


class Application:
    """Answers `/at-once` at once, and `/held` when the test lets it."""

    def __init__(self) -> None:
        self.begun = 0
        self.release = asyncio.Event()

    async def __call__(self, scope: Any, _receive: Any, send: Any) -> None:
        self.begun += 1
        if scope["path"] == "/held":
            await self.release.wait()
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]})
        await send({"type": "http.response.body", "body": b"ok"})


class Client:
    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self.writer = reader, writer

    def send(self, data: bytes) -> None:
        self.writer.write(data)

    async def answer(self) -> bytes:
        return await asyncio.wait_for(self._reader.readuntil(b"\r\n\r\nok"), 10)

    async def rest(self) -> bytes:
        """All until the server closes. A reset raises."""
        return await asyncio.wait_for(self._reader.read(), 10)


class Served:
    """A server whose last call lasts until the test ends it."""

    def __init__(self) -> None:
        self.app, self.stopping = Application(), asyncio.Event()
        self._clients: list[Client] = []
        self.server = HttpServer(self.app, "127.0.0.1", 0)
        self._listener = self.server.bind()
        self.serving = asyncio.create_task(
            self.server.serve(self._listener, self.stopping, drain_seconds=40, last_call_seconds=30)
        )

    async def client(self) -> Client:
        assert self.server.bound_port
        made = Client(*await asyncio.open_connection("127.0.0.1", self.server.bound_port))
        self._clients.append(made)
        return made

    async def call_last(self) -> None:
        """Ask it to stop, and wait until it has noticed."""
        self.stopping.set()
        await self.client()  # one that says nothing: there is a connection to look at
        await eventually(self._is_last_call, 10, "the last call")

    def _is_last_call(self) -> bool:
        return any(connection.last_call for connection in self.server._connections())

    def close(self) -> None:
        for client in self._clients:
            client.writer.transport.abort()

    def end_last_call(self) -> None:
        assert self.server._server
        self.server._server.should_exit = True  # what the server does by itself when the time has passed


@pytest.fixture
async def served() -> AsyncGenerator[Served]:
    made = Served()
    yield made
    made.stopping.set()
    made.end_last_call()
    made.app.release.set()
    await asyncio.wait_for(made.serving, 20)
    made.close()


async def rested(served: Served) -> Client:
    """A connection that has had one answer."""
    client = await served.client()
    client.send(REQUEST)
    assert CLOSES not in await client.answer()
    return client


async def test_a_connection_that_rests_has_one_more_request_answered_and_is_told(served: Served):
    client = await rested(served)
    await served.call_last()
    client.send(REQUEST)
    assert CLOSES in await client.answer()
    assert await client.rest() == b""


async def test_new_connections_are_taken_and_each_gets_one_answer(served: Served):
    await served.call_last()
    client = await served.client()
    client.send(REQUEST)
    assert CLOSES in await client.answer()
    assert await client.rest() == b""


async def test_a_request_in_flight_is_answered_and_its_answer_is_the_last(served: Served):
    client = await served.client()
    client.send(HELD)
    await eventually(lambda: served.app.begun, 10, "the request")
    await served.call_last()
    served.app.release.set()
    assert CLOSES in await client.answer()


async def test_pipelined_requests_are_all_answered_and_the_last_is_told(served: Served):
    client = await served.client()
    client.send(HELD + REQUEST)
    await eventually(lambda: served.app.begun, 10, "the first request")
    await served.call_last()
    served.app.release.set()
    assert (await client.answer()).startswith(b"HTTP/1.1 200 ")
    assert CLOSES in await client.answer()


async def test_what_rests_is_closed_when_the_last_call_ends(served: Served):
    client, silent = await rested(served), await served.client()
    await served.call_last()
    served.end_last_call()
    assert await client.rest() == b""
    assert await silent.rest() == b""


@pytest.mark.parametrize("sent", [1, len(REQUEST) - 1, len(REQUEST)])
async def test_a_request_that_has_begun_when_the_last_call_ends_is_answered(served: Served, sent: int):
    client = await rested(served)
    await served.call_last()
    client.send(REQUEST[:sent])
    served.end_last_call()
    await eventually(
        lambda: served.server._server and not served.server._server.servers[0].is_serving(), 10, "closed"
    )
    client.send(REQUEST[sent:])
    assert CLOSES in await client.answer()


async def test_a_request_that_lies_unread_in_the_socket_is_answered(served: Served):
    """It arrives in the very moment in which what rests is closed: no turn of the loop comes between."""
    client = await rested(served)
    await served.call_last()
    resting = served.server._connections()
    client.send(REQUEST)  # asyncio writes at once
    served.end_last_call()
    for connection in resting:
        connection.shutdown()
    assert CLOSES in await client.answer()


async def test_the_port_is_closed_after_the_last_call_at_the_latest():
    app, stopping = Application(), asyncio.Event()
    server = HttpServer(app, "127.0.0.1", 0)
    serving = asyncio.create_task(
        server.serve(server.bind(), stopping, drain_seconds=1, last_call_seconds=60)
    )
    assert server.bound_port
    reader, writer = await asyncio.open_connection("127.0.0.1", server.bound_port)
    writer.write(HELD)
    await eventually(lambda: app.begun, 10, "the request")
    stopping.set()
    await asyncio.wait_for(serving, 20)
    with pytest.raises(ConnectionRefusedError):
        await asyncio.open_connection("127.0.0.1", server.bound_port)
    assert b"ok" not in await reader.read()
    writer.close()
