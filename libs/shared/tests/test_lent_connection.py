"""What the HTTP server lends an application besides ASGI: who is told that a client has gone, and what goes on once the application
has returned. Tried over raw sockets.
"""

import asyncio
import weakref
from collections.abc import AsyncGenerator, Callable
from typing import Any

import pytest

from juinie_shared.runtime.http_server import HttpServer
from juinie_testkit.waits import eventually

GET = b"GET /%b HTTP/1.1\r\nHost: a\r\n\r\n"


class Request:
    """What the application made on its way, to see whether it is let go of."""


class Application:
    """`/sleep`: returns, and so does what goes on with its answer, until it is woken. `/forget`: leaves its answer as it is. `/rest`: returns once the head is out, and answers afterwards. `/left`: waits until it is told that its client has gone."""

    def __init__(self) -> None:
        self.before_left, self.go_on = asyncio.Event(), asyncio.Event()
        self.asked, self.left, self.returned = asyncio.Event(), asyncio.Event(), asyncio.Event()
        self.told: bool | None = None
        self.at_once = False
        self.made: weakref.ref[Request] | None = None
        self.transport: Any = None
        self.wake: Callable[[Any], None] = print

    async def __call__(self, scope: Any, _receive: Any, send: Any) -> None:
        lent = scope["extensions"]["juinie.transport"]
        self.transport = lent["transport"]
        if scope["path"] == "/left":
            self.asked.set()
            await self.before_left.wait()
            self.told = lent["when_left"](self.left.set)
            self.at_once = self.left.is_set()
            await self.left.wait()
            return
        scope["made"] = made = Request()
        self.made = weakref.ref(made)
        await send({"type": "http.response.start", "status": 200, "headers": []})
        if scope["path"] == "/rest":
            lent["afterwards"](self._rest)
            self.returned.set()
        elif scope["path"] == "/sleep":
            lent["when_left"](self.left.set)
            lent["afterwards"](self._sleep)
            self.wake = lambda rest: lent["afterwards"](rest)
        elif scope["path"] == "/forget":
            pass
        else:
            await send({"type": "http.response.body", "body": b"at once"})

    async def _sleep(self, _receive: Any, send: Any) -> None:
        """Nothing runs any more for an answer that is not complete."""
        await send({"type": "http.response.body", "body": b"good night;", "more_body": True})
        self.returned.set()

    async def _rest(self, _receive: Any, send: Any) -> None:
        await self.go_on.wait()
        await send({"type": "http.response.body", "body": b"afterwards"})


@pytest.fixture
def app() -> Application:
    return Application()


@pytest.fixture
async def connect(app: Application) -> AsyncGenerator[Callable[[], Any]]:
    server, stopping = HttpServer(app, "127.0.0.1", 0), asyncio.Event()
    listener = server.bind()
    serving = asyncio.create_task(server.serve(listener, stopping, drain_seconds=1))
    yield lambda: asyncio.open_connection("127.0.0.1", server.bound_port)
    stopping.set()
    await serving


async def within[T](waiting: Any) -> T:
    return await asyncio.wait_for(waiting, 10)


async def body(reader: asyncio.StreamReader) -> bytes:
    """Of the next answer, chunked."""
    await within(reader.readuntil(b"\r\n\r\n"))
    return await within(reader.readuntil(b"0\r\n\r\n"))


async def test_an_answer_goes_on_once_its_application_has_returned_and_nothing_of_it_is_kept(
    app: Application, connect: Any
) -> None:
    reader, writer = await connect()
    writer.write(GET % b"rest")
    await within(app.returned.wait())
    await asyncio.sleep(0)  # its coroutine ends in this turn of the loop
    assert app.made is not None
    assert app.made() is None
    app.go_on.set()
    assert await body(reader) == b"a\r\nafterwards\r\n0\r\n\r\n"
    writer.write(GET % b"once")  # the connection is good for more
    assert await body(reader) == b"7\r\nat once\r\n0\r\n\r\n"
    writer.close()


async def test_requests_behind_it_wait_for_its_end_and_are_whole(app: Application, connect: Any) -> None:
    reader, writer = await connect()
    writer.write(GET % b"rest" + GET % b"once")
    await within(app.returned.wait())
    app.go_on.set()
    assert await body(reader) == b"a\r\nafterwards\r\n0\r\n\r\n"
    assert await body(reader) == b"7\r\nat once\r\n0\r\n\r\n"
    writer.close()


async def test_rubbish_behind_it_is_refused_after_its_end(app: Application, connect: Any) -> None:
    reader, writer = await connect()
    writer.write(GET % b"rest")
    await within(app.returned.wait())
    writer.write(b"\x00\x00\r\n\r\n")
    app.go_on.set()
    assert await body(reader) == b"a\r\nafterwards\r\n0\r\n\r\n"
    assert (await within(reader.read())).startswith(b"HTTP/1.1 400 ")
    writer.close()


async def test_who_leaves_is_told_of(app: Application, connect: Any) -> None:
    _, writer = await connect()
    app.before_left.set()
    writer.write(GET % b"left")
    await within(app.asked.wait())
    writer.close()
    await within(app.left.wait())
    assert app.told is True


async def test_who_leaves_is_told_of_though_another_request_waits_behind(
    app: Application, connect: Any
) -> None:
    _, writer = await connect()
    app.before_left.set()
    writer.write(GET % b"left" + GET % b"once")
    await within(app.asked.wait())
    writer.transport.abort()
    await within(app.left.wait())


async def test_who_left_before_anybody_asked_is_told_of_all_the_same(app: Application, connect: Any) -> None:
    _, writer = await connect()
    writer.write(GET % b"left")
    await within(app.asked.wait())
    writer.transport.abort()
    while not app.transport.is_closing():  # it has been seen
        await asyncio.sleep(0)
    app.before_left.set()
    await within(app.left.wait())


async def test_while_a_body_is_to_come_nobody_is_told(app: Application, connect: Any) -> None:
    _, writer = await connect()
    app.before_left.set()
    writer.write(b"GET /left HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nab")
    await within(app.asked.wait())
    app.left.set()
    while app.told is None:
        await asyncio.sleep(0)
    assert app.told is False
    writer.close()


async def asleep(app: Application, connect: Any) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """A client whose answer nothing runs for."""
    before = asyncio.all_tasks()
    reader, writer = await connect()
    writer.write(GET % b"sleep")
    await within(reader.readuntil(b"good night;\r\n"))
    await within(app.returned.wait())
    await asyncio.sleep(0)
    assert asyncio.all_tasks() == before
    return reader, writer


async def test_an_answer_goes_on_when_nothing_runs_for_it_and_is_woken(
    app: Application, connect: Any
) -> None:
    reader, writer = await asleep(app, connect)
    writer.write(GET % b"once")  # waits behind it

    async def end(_receive: Any, send: Any) -> None:
        await send({"type": "http.response.body", "body": b"morning"})

    app.wake(end)
    assert await within(reader.readuntil(b"0\r\n\r\n")) == b"7\r\nmorning\r\n0\r\n\r\n"
    assert await body(reader) == b"7\r\nat once\r\n0\r\n\r\n"
    writer.close()


async def test_it_may_sleep_again(app: Application, connect: Any) -> None:
    reader, writer = await asleep(app, connect)

    async def part(_receive: Any, send: Any) -> None:
        await send({"type": "http.response.body", "body": b"part", "more_body": True})

    for _ in range(3):
        app.wake(part)
        await within(reader.readuntil(b"4\r\npart\r\n"))
    writer.close()
    await within(app.left.wait())


async def test_who_leaves_while_nothing_runs_is_told_of(app: Application, connect: Any) -> None:
    _, writer = await asleep(app, connect)
    writer.transport.abort()
    await within(app.left.wait())


async def test_an_error_of_what_was_woken_cuts_the_connection(app: Application, connect: Any) -> None:
    reader, writer = await asleep(app, connect)

    async def fail(_receive: Any, _send: Any) -> None:
        raise ValueError

    app.wake(fail)
    assert await within(reader.read()) == b""
    writer.close()


async def test_an_answer_that_is_forgotten_is_cut(connect: Any) -> None:
    reader, writer = await connect()
    writer.write(GET % b"forget")
    head = await within(reader.read())
    assert head.endswith(b"\r\n\r\n")
    assert b"0\r\n\r\n" not in head.removesuffix(b"\r\n\r\n")
    writer.close()


async def test_of_a_client_that_has_gone_already_it_is_told_at_once(app: Application, connect: Any) -> None:
    """Whatever else happens in that turn of the loop finds it told."""
    _, writer = await connect()
    writer.write(GET % b"left")
    await within(app.asked.wait())
    writer.transport.abort()
    await eventually(lambda: app.transport.is_closing(), 10, "the server to see it")
    await asyncio.sleep(0)
    app.before_left.set()
    await within(app.left.wait())
    assert (app.told, app.at_once) == (True, True)


async def test_a_body_that_comes_behind_is_not_the_answered_request_s_own(
    app: Application, connect: Any
) -> None:
    _, writer = await connect()
    post = b"POST /once HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\nabc"
    writer.write(GET % b"left" + post)
    await within(app.asked.wait())
    app.before_left.set()
    await eventually(lambda: app.told is not None, 10, "an answer")
    assert app.told is True
    writer.transport.abort()
    await within(app.left.wait())
