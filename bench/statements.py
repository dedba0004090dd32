"""Between a service and its Postgres: forwards, and counts what the service asks (PostgreSQL documentation, 54.7: message formats).

Rows are handed on with the end of their answer: how many pieces they come in is a question of who is faster, and so is how
often the service reads.
"""

import asyncio
import contextlib
import struct
from collections import Counter
from typing import Self
from urllib.parse import urlsplit, urlunsplit

_STARTUP = 3 << 16
_CHUNK_BYTES = 1 << 16
_ENCRYPTION = (b"S", b"N")
"""The answer to a request for encryption: the only one that is no message."""
_ROW = ord("D")


class Statements:
    """Use as `async with`. `round_trips`: how often an answer was asked for. `executed`: how often, by the text of the statement."""

    def __init__(self, database_url: str) -> None:
        self._parts = urlsplit(database_url)
        self.round_trips = 0
        self.executed = Counter[str]()
        self._tasks = set[asyncio.Task[None]]()

    @property
    def url(self) -> str:
        """Of the same database, through here."""
        user, _, _ = self._parts.netloc.rpartition("@")
        return urlunsplit(self._parts._replace(netloc=f"{user}@127.0.0.1:{self._port}"))

    def times(self, words: str) -> int:
        """How often a statement with these words was executed."""
        return sum(times for text, times in self.executed.items() if words in text)

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        self._port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _accept(self, client: asyncio.StreamReader, to_client: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        server, to_server = await asyncio.open_connection(self._parts.hostname, self._parts.port)
        try:
            with contextlib.suppress(ConnectionError):
                await asyncio.gather(
                    self._listen(client, to_server, _Session(self)), _forward(server, to_client)
                )
        finally:
            to_server.close()
            to_client.close()

    async def _listen(
        self, client: asyncio.StreamReader, to_server: asyncio.StreamWriter, session: "_Session"
    ) -> None:
        while data := await client.read(_CHUNK_BYTES):
            session.take(data)
            to_server.write(data)
            await to_server.drain()
        to_server.close()


async def _forward(source: asyncio.StreamReader, to: asyncio.StreamWriter) -> None:
    answer = _Answer()
    while data := await source.read(_CHUNK_BYTES):
        if whole := answer.take(data):
            to.write(whole)
            await to.drain()
    to.close()


class _Answer:
    """What Postgres says, until it can be handed on."""

    def __init__(self) -> None:
        self._held = bytearray()
        self._place = 0
        self._rows = False

    def take(self, data: bytes) -> bytes:
        """All that was held, where it ends with a whole message that is no row; else nothing."""
        self._held += data
        if self._held in _ENCRYPTION:
            self._place = 1
        while len(self._held) >= (end := self._end()):
            self._rows, self._place = self._held[self._place] == _ROW, end
        if self._rows or self._place < len(self._held):
            return b""
        whole = bytes(self._held)
        self._held.clear()
        self._place = 0
        return whole

    def _end(self) -> int:
        """Of the next message: behind what is there, where its length is not there yet."""
        length = self._held[self._place + 1 : self._place + 5]
        return self._place + (1 + int.from_bytes(length) if len(length) == 4 else 5)


class _Session:
    """What one connection says."""

    def __init__(self, counts: Statements) -> None:
        self._counts = counts
        self._rest = b""
        self._started = False
        self._texts: dict[bytes, str] = {}
        self._bound = ""

    def take(self, data: bytes) -> None:
        self._rest += data
        while self._one():
            pass

    def _one(self) -> bool:
        """The next message, if it is here whole."""
        before = 1 if self._started else 0  # all but the first messages begin with their type
        if len(self._rest) < before + 4:
            return False
        end = before + int.from_bytes(self._rest[before : before + 4])
        if len(self._rest) < end:
            return False
        message, self._rest = self._rest[:end], self._rest[end:]
        if self._started:
            self._count(message[:1], message[5:])
        else:  # a request for encryption may come before it
            self._started = struct.unpack("!i", message[4:8])[0] == _STARTUP
        return True

    def _count(self, kind: bytes, body: bytes) -> None:
        match kind:
            case b"P":
                name, text, _ = body.split(b"\0", 2)
                self._texts[name] = text.decode()
            case b"B":
                self._bound = self._texts[body.split(b"\0", 2)[1]]
            case b"E":
                self._counts.executed[self._bound] += 1
            case b"Q":
                self._counts.executed[body[:-1].decode()] += 1
                self._counts.round_trips += 1
            case b"S":
                self._counts.round_trips += 1
            case _:
                pass
