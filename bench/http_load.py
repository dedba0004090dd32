"""Requests over connections that stay open, one after the other on each, as cheap as Python makes them.

It shares the machine with what it loads, so it does nothing but write a ready request and look for the end of the answer.
"""

import asyncio
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import override

from reach import connect

type MakeRequest = Callable[[int], bytes]
"""The whole request with this number, head and body."""


@dataclass(frozen=True, slots=True)
class Done:
    """How it went: seconds of all, and of each request."""

    seconds: float
    latencies: Sequence[float]


def content_length(head: bytes) -> int:
    """Of a message that tells it."""
    return int(head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0])


def is_whole(answer: bytes) -> bool:
    """Whether an answer that tells its length is there to its end."""
    head, found, body = answer.partition(b"\r\n\r\n")
    if not found:
        return False
    return len(body) >= content_length(head)


class _Connection(asyncio.Protocol):
    """One request after the other, as long as there are any."""

    def __init__(self, next_request: Callable[[], bytes | None], done: asyncio.Future[None]) -> None:
        self.latencies: list[float] = []
        self._next, self._done = next_request, done
        self._answer = b""
        self._transport: asyncio.WriteTransport | None = None
        self._began = 0.0

    @override
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.WriteTransport) or hasattr(transport, "write")
        self._transport = transport  # pyright: ignore[reportAttributeAccessIssue] - uvloop's is no subclass
        self._send()

    @override
    def data_received(self, data: bytes) -> None:
        self._answer += data
        if not is_whole(self._answer):
            return
        if self._answer[9:12] != b"201":
            self._fail(AssertionError(self._answer.decode(errors="replace")))
            return
        self.latencies.append(time.perf_counter() - self._began)
        self._answer = b""
        self._send()

    @override
    def connection_lost(self, exc: Exception | None) -> None:
        self._fail(exc or ConnectionError("The server closed the connection."))

    def _send(self) -> None:
        assert self._transport is not None
        request = self._next()
        if request is None:
            if not self._done.done():
                self._done.set_result(None)
            self._transport.close()
            return
        self._began = time.perf_counter()
        self._transport.write(request)

    def _fail(self, error: Exception) -> None:
        if not self._done.done():
            self._done.set_exception(error)


class Client(asyncio.Protocol):
    """A connection that sends when it is told to, one request at a time."""

    def __init__(self) -> None:
        self._answer = b""
        self._answered: asyncio.Future[None] | None = None

    @override
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport

    @override
    def data_received(self, data: bytes) -> None:
        self._answer += data
        if self._answered is None or self._answered.done() or not is_whole(self._answer):
            return
        if self._answer[9:12] == b"201":
            self._answered.set_result(None)
        else:
            self._answered.set_exception(AssertionError(self._answer.decode(errors="replace")))

    @override
    def connection_lost(self, exc: Exception | None) -> None:
        if self._answered is not None and not self._answered.done():
            self._answered.set_exception(exc or ConnectionError("The server closed the connection."))

    def send(self, request: bytes) -> asyncio.Future[None]:
        """Done when it is answered; AssertionError where that is not 201."""
        self._answer, self._answered = b"", asyncio.get_running_loop().create_future()
        self._transport.write(request)  # pyright: ignore[reportAttributeAccessIssue] - it is one to write to
        return self._answered

    def close(self) -> None:
        self._transport.close()


async def send_all(port: int, make: MakeRequest, count: int, connections: int) -> Done:
    """`count` requests to this port of 127.0.0.1, over so many connections at once.

    Raises:
        AssertionError: an answer was not 201.
    """
    numbers = iter(range(count))

    def next_request() -> bytes | None:
        number = next(numbers, None)
        return None if number is None else make(number)

    loop = asyncio.get_running_loop()
    began = time.perf_counter()
    protocols: list[_Connection] = []
    ends: list[asyncio.Future[None]] = []
    for _ in range(min(connections, count)):
        end: asyncio.Future[None] = loop.create_future()
        protocols.append(await connect(lambda end=end: _Connection(next_request, end), port))
        ends.append(end)
    await asyncio.gather(*ends)
    return Done(time.perf_counter() - began, [t for protocol in protocols for t in protocol.latencies])


def post(path: str, key: str, body: bytes) -> bytes:
    """A whole request."""
    head = (
        f"POST {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nAuthorization: Bearer {key}\r\n"
        f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body
