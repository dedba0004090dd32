"""Requests at a steady pace, whatever became of those before: as agents send, who do not wait for one another.

One that finds all connections busy waits for one, and its wait counts: a server that stands still for a moment is seen by all who
came in that moment, not by one.
"""

import asyncio
import time
from collections import deque
from collections.abc import Callable
from typing import override

from alarm import alarm
from http_load import is_whole
from reach import connect

ANSWER_SECONDS = 60.0
"""So long all answers may take, once the last request was due."""
_WAKE_SECONDS = 0.001
_CLOSE_SECONDS = 0.002
"""Requests that are due closer together go out as an ordinary timer comes: to be woken for each would take from what is measured."""


class _Connection(asyncio.Protocol):
    def __init__(self, answered: "Callable[[_Connection, bytes], None]") -> None:
        self._answered, self._answer = answered, b""
        self.lost = False
        self.due = 0.0
        self.transport: asyncio.WriteTransport

    @override
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport  # pyright: ignore[reportAttributeAccessIssue] - uvloop's is no subclass

    @override
    def data_received(self, data: bytes) -> None:
        self._answer += data
        if not is_whole(self._answer):
            return
        answer, self._answer = self._answer, b""
        self._answered(self, answer)

    @override
    def connection_lost(self, exc: Exception | None) -> None:
        self.lost = True


class OpenLoad:
    """`make` gives the whole request with a number, which is due at a moment of `time.perf_counter()`."""

    def __init__(self, port: int, make: Callable[[int, float], bytes]) -> None:
        self._port, self._make = port, make
        self._free: deque[_Connection] = deque()
        self._waiting: deque[tuple[bytes, float]] = deque()
        self._sent = self._answers = 0
        self._refused: bytes | None = None
        self._latencies: list[float] = []

    async def send(self, count: int, rate: float, connections: int) -> list[float]:
        """So many requests, `rate` a second, over so many connections. Gives the seconds from when each was due until its answer.

        Raises:
            AssertionError: an answer was not 201, or a connection was closed.
        """
        opened = [await connect(lambda: _Connection(self._answered), self._port) for _ in range(connections)]
        self._free, self._latencies = deque(opened), []
        try:
            await self._send(count, rate)
            patience = time.perf_counter() + ANSWER_SECONDS
            while self._answers < self._sent:
                assert time.perf_counter() < patience, f"{self._sent - self._answers} answers are missing."
                assert not any(connection.lost for connection in opened), "The server closed a connection."
                await asyncio.sleep(_WAKE_SECONDS)
        finally:
            for connection in opened:
                connection.transport.close()
        assert self._refused is None, self._refused
        return self._latencies

    async def _send(self, count: int, rate: float) -> None:
        began = time.perf_counter()
        async with alarm() as until:
            for number in range(count):
                due = began + number / rate
                if due - time.perf_counter() > _CLOSE_SECONDS:
                    await until(due)
                while (now := time.perf_counter()) < due:
                    await asyncio.sleep(max(_WAKE_SECONDS, due - now))
                self._hand_over(self._make(self._sent, due), due)
                self._sent += 1

    def _hand_over(self, request: bytes, due: float) -> None:
        if self._free:
            self._write(self._free.popleft(), request, due)
        else:
            self._waiting.append((request, due))

    def _write(self, connection: _Connection, request: bytes, due: float) -> None:
        connection.due = due
        connection.transport.write(request)

    def _answered(self, connection: _Connection, answer: bytes) -> None:
        self._answers += 1
        self._latencies.append(time.perf_counter() - connection.due)
        if answer[9:12] != b"201":
            self._refused = answer
        if self._waiting:
            self._write(connection, *self._waiting.popleft())
        else:
            self._free.append(connection)
