"""A TCP proxy between a service and its Postgres or Kafka: forward, cut, hang, forget, resume, count.

For Kafka it serves only the first contact: after that clients use the address that the broker advertises.
"""

import asyncio
import contextlib
import socket
import struct
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, Self
from urllib.parse import urlsplit, urlunsplit

type Mode = Literal["forward", "hang", "refuse"]

_RESET_AT_CLOSE = struct.pack("ii", 1, 0)


@dataclass(eq=False)
class _Line:
    """One connection through the proxy."""

    client: asyncio.StreamWriter
    forgotten: bool = False
    resets: bool = False

    def drop(self) -> None:
        if self.resets:
            peer: Any = self.client.get_extra_info("socket")
            peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_AT_CLOSE)
            self.client.transport.abort()


class Proxy:
    """Forwards 127.0.0.1:`port` to one server. Use as `async with`."""

    def __init__(self, host: str, port: int) -> None:
        self._target = (host, port)
        self.port = 0
        self.seconds_to_connect = 0.0
        self.accepted = 0
        self.open = 0
        self.bytes_to_server = 0
        self.bytes_to_client = 0
        self.forgotten_bytes = 0
        self._mode: Mode = "forward"
        self._hang_at: bytes | None = None
        self._flowing = asyncio.Event()
        self._server: asyncio.Server | None = None
        self._writers: set[asyncio.StreamWriter] = set()
        self._lines: set[_Line] = set()
        self._tasks: set[asyncio.Task[None]] = set()

    @classmethod
    def before(cls, database_url: str) -> "Proxy":
        """A proxy for the server of this URL; `url_through` gives the URL that leads through it."""
        parts = urlsplit(database_url)
        return cls(parts.hostname or "127.0.0.1", parts.port or 5432)

    def url_through(self, database_url: str) -> str:
        parts = urlsplit(database_url)
        user, at, _ = parts.netloc.rpartition("@")
        return urlunsplit(parts._replace(netloc=f"{user}{at}127.0.0.1:{self.port}"))

    async def refuse(self) -> None:
        """Cut what is open, and refuse what comes: the server is away."""
        self._mode = "refuse"
        await self._stop_listening()
        self.cut()

    def hang(self) -> None:
        """Take connections and bytes, and forward nothing: a black hole."""
        self._mode = "hang"
        self._flowing.clear()

    @property
    def hangs(self) -> bool:
        return self._mode == "hang"

    def hang_at(self, words: bytes) -> None:
        """Hang as soon as a client sends these bytes in one piece: they are the first that are held back."""
        self._hang_at = words

    def forget(self, *, resets: bool = False) -> None:
        """Drop what comes on the open connections, either way, without a word; new ones are forwarded: a firewall that was
        started anew. `resets`: a client that sends something on one is told."""
        for line in self._lines:
            line.forgotten, line.resets = True, resets

    async def resume(self) -> None:
        """Forward again, what was held back too."""
        self._mode = "forward"
        self._hang_at = None
        self._flowing.set()
        if self._server is None:
            await self._listen()

    def cut(self) -> None:
        """Cut every open connection; new ones are welcome."""
        for writer in list(self._writers):
            writer.transport.abort()

    async def __aenter__(self) -> Self:
        self._flowing.set()
        await self._listen()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._stop_listening()
        self.cut()
        self._flowing.set()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _listen(self) -> None:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", self.port)
        self.port = self._server.sockets[0].getsockname()[1]

    async def _stop_listening(self) -> None:
        if self._server:
            self._server.close()
            self._server = None

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.accepted += 1
        task = asyncio.create_task(self._connect(reader, writer))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _connect(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.open += 1
        self._writers.add(writer)
        try:
            await self._flowing.wait()
            await asyncio.sleep(self.seconds_to_connect)
            server_reader, server_writer = await asyncio.open_connection(*self._target)
        except OSError:
            self._leave(writer)
            self.open -= 1
            return
        self._writers.add(server_writer)
        line = _Line(writer)
        self._lines.add(line)
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._pump(line, reader, server_writer, self._watch, self._count_to_server))
                group.create_task(self._pump(line, server_reader, writer, _look_away, self._count_to_client))
        finally:
            self._lines.discard(line)
            self._leave(writer)
            self._leave(server_writer)
            self.open -= 1

    async def _pump(
        self,
        line: _Line,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        look: Callable[[bytes], None],
        count: Callable[[int], None],
    ) -> None:
        """One direction, to the end of either side."""
        with contextlib.suppress(OSError):
            while data := await reader.read(65536):
                if line.forgotten:
                    self.forgotten_bytes += len(data)
                    line.drop()
                    continue
                look(data)
                await self._flowing.wait()
                writer.write(data)
                count(len(data))
                await writer.drain()
        if not line.forgotten:
            writer.close()

    def _watch(self, data: bytes) -> None:
        if self._hang_at is not None and self._hang_at in data:
            self.hang()

    def _leave(self, writer: asyncio.StreamWriter) -> None:
        self._writers.discard(writer)
        writer.transport.abort()

    def _count_to_server(self, size: int) -> None:
        self.bytes_to_server += size

    def _count_to_client(self, size: int) -> None:
        self.bytes_to_client += size


def _look_away(_data: bytes) -> None:
    """What a server sends makes nothing hang."""
