"""What goes straight to the transport and what goes through ASGI are the same bytes, whatever is written when."""

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from juinie_shared.runtime.http_server import HttpServer
from juinie_stream_gateway.edges.connection import HttpConnection
from juinie_stream_gateway.edges.outlet import CHUNK_BYTES, ENDED, OutletLimits, ResponseOutlet
from juinie_testkit.raw_stream import unchunked

type Act = Callable[[ResponseOutlet], Awaitable[None]]


@dataclass(frozen=True)
class Step:
    """Something that befalls an outlet. `size`: of what is written."""

    what: str
    size: int = 0

    async def befall(self, outlet: ResponseOutlet, number: int) -> None:
        frame = b"%d:" % number + b"x" * self.size + b"\n"
        match self.what:
            case "write":
                outlet.write(frame)
            case "write each":
                outlet.write_each([frame, frame.upper(), b"\n"])
            case "flush":
                await outlet.flush()
            case _:
                await asyncio.sleep(0)


SIZES = st.sampled_from([0, 1, 300, CHUNK_BYTES - 2, CHUNK_BYTES, 200_000])
STEPS = st.lists(
    st.one_of(
        st.builds(Step, st.sampled_from(["write", "write each"]), SIZES),
        st.builds(Step, st.sampled_from(["flush", "sleep"])),
    ),
    max_size=25,
)


class Both:
    """A server whose streams are what `script` says, directly at `/direct` and through ASGI at `/asgi`."""

    def __init__(self) -> None:
        self.script: list[Step] = []
        self.kept_bytes: list[int] = []
        self._port = 0

    async def __call__(self, scope: dict[str, Any], receive: Any, send: Any) -> None:
        if scope["path"] == "/asgi":
            del scope["extensions"]["juinie.transport"]["body"]
        connection = HttpConnection(scope, receive, send)
        outlet = ResponseOutlet(connection, OutletLimits())
        outlet.write(b"before the head;")
        await connection.start([(b"content-type", b"text/plain")])
        for number, step in enumerate(self.script):
            if step.what == "note what is kept":
                self.kept_bytes.append(outlet.held_bytes - connection.unsent_bytes())
            await step.befall(outlet, number)
        outlet.finish()
        await outlet.flush()
        assert outlet.closing == ENDED
        await outlet.send_last_chunk()

    async def bytes_of(self, path: str) -> bytes:
        """The body."""
        return (await self.answer_of(path))[1]

    async def answer_of(
        self, path: str, more_headers: bytes = b"Connection: close\r\n"
    ) -> tuple[bytes, bytes]:
        """Head and body."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self._port, limit=1 << 24)
        writer.write(b"GET %b HTTP/1.1\r\nHost: x\r\n%b\r\n" % (path.encode(), more_headers))
        answer = await reader.readuntil(b"\r\n0\r\n\r\n")
        writer.close()
        head, _, chunks = answer.partition(b"\r\n\r\n")
        assert b"transfer-encoding: chunked" in head
        return head, unchunked(chunks)

    @asynccontextmanager
    async def serving(self) -> AsyncGenerator[None]:
        stopping = asyncio.Event()
        server = HttpServer(self, "127.0.0.1", 0)
        listener = server.bind()
        self._port = server.bound_port or 0
        task = asyncio.create_task(server.serve(listener, stopping, 1.0))
        try:
            yield
        finally:
            stopping.set()
            await task
            listener.close()


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(script=STEPS)
def test_both_ways_give_the_same_bytes(script: list[Step]) -> None:
    async def compare() -> None:
        both = Both()
        both.script = script
        async with both.serving():
            direct, through_asgi = await asyncio.gather(both.bytes_of("/direct"), both.bytes_of("/asgi"))
        assert direct == through_asgi

    asyncio.run(compare())


@pytest.mark.parametrize(("path", "kept"), [("/direct", 0), ("/asgi", 300 + len(b"1:\n"))])
async def test_what_is_written_to_one_who_reads_waits_for_no_task(path: str, kept: int) -> None:
    both = Both()
    both.script = [Step("flush"), Step("write", 300), Step("note what is kept")]
    async with both.serving():
        await both.bytes_of(path)
    assert both.kept_bytes == [kept]


async def test_what_was_kept_goes_out_before_what_could_go_directly() -> None:
    both = Both()
    both.script = [Step("write", 10), Step("write each", 300), Step("flush"), Step("write", 20)]
    async with both.serving():
        body = await both.bytes_of("/direct")
    assert [line[:2] for line in body.splitlines()[1:]] == [b"1:", b"1:", b"", b"3:"]


@pytest.mark.parametrize("more_headers", [b"Connection: close\r\n", b""])
async def test_both_ways_give_the_same_head(more_headers: bytes) -> None:
    both = Both()
    async with both.serving():
        (direct, _), (through_asgi, _) = [
            await both.answer_of(path, more_headers) for path in ("/direct", "/asgi")
        ]
    assert direct == through_asgi
    assert (b"connection: close" in direct) is bool(more_headers)
