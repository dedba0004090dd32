"""One request's side of ASGI, and the transport beneath it where the server lends it (`runtime/http_server.py`)."""

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Iterable
from typing import Any, Protocol

from juinie_shared.runtime.direct_body import DirectBody
from juinie_shared.runtime.tcp import cut
from juinie_stream_gateway.core.watcher import Line

type Send = Callable[[dict[str, Any]], Awaitable[None]]
type Receive = Callable[[], Awaitable[dict[str, Any]]]
type Rest = Callable[[Receive, Send], Coroutine[Any, Any, None]]
type Headers = list[tuple[bytes, bytes]]


class StreamCut(Exception):
    """Ends a stream's connection without the last chunk, on servers that do not lend us their transport."""


class HeldLine(Line, Protocol):
    """A line, and who has hold of it: see `DirectBody`."""

    @property
    def behind(self) -> bool: ...
    def begin(self, headers: Iterable[tuple[bytes, bytes]]) -> bool: ...
    def go(self) -> None: ...
    def hold(self) -> None: ...
    def release(self) -> None: ...
    def look(self) -> None: ...


class NoLine:
    """Where the server lends none: nothing is ever written past `send`, and nobody knows what the client has read."""

    write: Callable[[bytes], object] | None = None
    behind = True

    def begin(self, headers: Iterable[tuple[bytes, bytes]]) -> bool:  # noqa: ARG002 - as a `DirectBody`
        return False

    def go(self) -> None: ...
    def hold(self) -> None: ...
    def release(self) -> None: ...
    def look(self) -> None: ...


class HttpConnection:
    """Sends, waits for who reads, and cuts. `marks`: headers that every answer has."""

    __slots__ = (
        "_afterwards",
        "_marks",
        "_receive",
        "_send",
        "_transport",
        "_when_left",
        "_when_slow",
        "line",
    )

    def __init__(
        self, scope: dict[str, Any], receive: Receive, send: Send, marks: Headers | None = None
    ) -> None:
        self._receive = receive
        self._send = send
        self._marks = marks or []
        lent: dict[str, Any] = scope.get("extensions", {}).get("juinie.transport", {})
        self._transport: asyncio.Transport | None = lent.get("transport")
        lend: Callable[[], DirectBody | None] = lent.get("body", lambda: None)
        self.line: HeldLine = lend() or NoLine()
        """Takes parts of a stream at once, when it can; else `send_body` does."""
        self._when_slow: Callable[[Callable[[], None] | None], None] | None = lent.get("when_slow")
        self._afterwards: Callable[[Rest], None] | None = lent.get("afterwards")
        self._when_left: Callable[[Callable[[], None] | None], bool] | None = lent.get("when_left")

    async def answer(self, status: int, headers: Headers, body: bytes) -> None:
        """A whole answer."""
        await self._send(
            {"type": "http.response.start", "status": status, "headers": [*headers, *self._marks]}
        )
        await self._send({"type": "http.response.body", "body": body})

    async def start(self, headers: Headers) -> None:
        """The head of a stream. Where it can, it goes out with the first bytes that follow it."""
        headers, self._marks = [*headers, *self._marks], []
        if not self.line.begin(headers):
            await self._send({"type": "http.response.start", "status": 200, "headers": headers})
            self.line.look()

    @property
    def may_rest(self) -> bool:
        """The answer may go on when nothing runs for it: `wake` has something run again."""
        return self._afterwards is not None

    async def afterwards(self, rest: Rest) -> None:
        """Do the rest once the application has returned, or now where the server cannot: then nothing is left, in memory, of
        what lay between the two.
        """
        if self._afterwards is None:
            await rest(self._receive, self._send)
        else:
            self._afterwards(rest)

    def wake(self, rest: Rest) -> None:
        """As `afterwards`, once all has returned."""
        if self._afterwards is not None:
            self._afterwards(rest)

    def goes_on_by(self, receive: Receive, send: Send) -> None:
        """Those that the application was given may have had something around them."""
        self._receive, self._send = receive, send

    async def send_body(self, data: bytes) -> None:
        """Send a part of a stream, once the client has read enough of what came before. One that is broken off while it
        waits has sent nothing (uvicorn).
        """
        await self._send({"type": "http.response.body", "body": data, "more_body": True})

    async def send_end(self) -> None:
        """The last chunk, likewise."""
        await self._send({"type": "http.response.body", "body": b""})

    def when_slow(self, give_up: Callable[[], None] | None) -> None:
        """What the server is to call when the client takes too little; None: it cuts the connection."""
        if self._when_slow is not None:
            self._when_slow(give_up)

    def when_left(self, left: Callable[[], None] | None) -> bool:
        """What the server is to call when the client has gone. False: it will not, and somebody has to wait for that."""
        return self._when_left is not None and self._when_left(left)

    def unsent_bytes(self) -> int:
        """What the transport could not yet hand to the kernel."""
        if self._transport is None or self._transport.is_closing():
            return 0
        return self._transport.get_write_buffer_size()

    async def until_disconnected(self) -> None:
        """Return when the client has gone, or its connection was cut."""
        while (await self._receive())["type"] != "http.disconnect":
            pass

    async def cut(self) -> None:
        """Close without the last chunk, once what was sent is written out; `abort` comes to who does not read."""
        if self._transport is None:
            raise StreamCut
        if not self._transport.is_closing():
            self._transport.close()
        await self.until_disconnected()

    def abort(self) -> None:
        if self._transport is not None:
            cut(self._transport)
