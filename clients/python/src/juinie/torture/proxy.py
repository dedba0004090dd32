"""A TCP proxy that misbehaves on request: cuts, hangs, delays, lets one way through only.

async with BadLine("127.0.0.1", 8001) as line:
    …  # 127.0.0.1:line.port leads there
    line.set("hang")
"""

import asyncio
from collections import deque
from enum import StrEnum
from typing import Self, cast


class Mode(StrEnum):
    """What the line does to bytes."""

    GOOD = "good"
    REFUSE = "refuse"
    """New connections are closed at once."""
    HANG = "hang"
    """Nothing passes, nothing is closed: a black hole. What was held back passes when the line is good again."""
    ONE_WAY = "one way"
    """What goes to the server passes, what it answers does not."""
    DELAY = "delay"
    """Every piece takes `delay_seconds` longer, in order."""


class BadLine:
    """127.0.0.1:`port` leads to one server. Use as `async with`."""

    def __init__(self, host: str, port: int, *, listen_port: int = 0, delay_seconds: float = 0.2) -> None:
        self.port = listen_port
        self.mode = Mode.GOOD
        self.delay_seconds = delay_seconds
        self._target = (host, port)
        self._server: asyncio.Server | None = None
        self._sides: set[_Side] = set()

    @property
    def open(self) -> int:
        """Connections that are open."""
        return sum(isinstance(side, _Near) for side in self._sides)

    def set(self, mode: Mode) -> None:
        """From now on, for connections that are open and those that come."""
        self.mode = mode
        for side in list(self._sides):
            side.choose_reading()

    def cut(self) -> None:
        """Cut every open connection, as a power failure does; new ones are welcome."""
        for side in list(self._sides):
            side.abort()

    async def __aenter__(self) -> Self:
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(lambda: _Near(self), "127.0.0.1", self.port)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._server:
            self._server.close()
        self.cut()

    def joined(self, side: "_Side") -> None:
        self._sides.add(side)

    def left(self, side: "_Side") -> None:
        self._sides.discard(side)

    def connect(self, near: "_Near") -> None:
        """Open the connection's other half."""
        task = asyncio.get_running_loop().create_task(self._connect(near))
        near.connecting = task

    async def _connect(self, near: "_Near") -> None:
        try:
            await asyncio.get_running_loop().create_connection(lambda: _Far(self, near), *self._target)
        except OSError:
            near.abort()


class _Side(asyncio.Protocol):
    """One half of a connection. It reads only while the other half may be written to; so a hanging line fills up."""

    def __init__(self, line: BadLine) -> None:
        self._line = line
        self._other: _Side | None = None
        self._transport: asyncio.Transport | None = None
        self._full = False
        self._at_end = False
        self._held: list[bytes | None] = []
        """What was read all the same: some event loops read once more after `pause_reading`."""
        self._late: deque[tuple[float, bytes | None]] = deque()
        """What is delayed, and until when; None is the end."""

    # ---- what happens to it

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(
            "asyncio.Transport", transport
        )  # create_server and create_connection make no other
        self._line.joined(self)

    def connection_lost(self, exc: Exception | None) -> None:
        self._line.left(self)
        if self._other is not None and (exc is not None or not self._at_end):
            self._other.abort()

    def data_received(self, data: bytes) -> None:
        self._take(data)

    def eof_received(self) -> bool:
        self._at_end = True
        self._take(None)
        return True

    def pause_writing(self) -> None:
        self._full = True
        if self._other is not None:
            self._other.choose_reading()

    def resume_writing(self) -> None:
        self._full = False
        if self._other is not None:
            self._other.choose_reading()

    # ---- what is done with it

    def join(self, other: "_Side") -> None:
        """From now on the two are one connection."""
        self._other = other
        self.choose_reading()

    def choose_reading(self) -> None:
        """Read, or leave what comes in the kernel."""
        if not self._must_wait():
            held, self._held = self._held, []
            for data in held:
                self._pass(data)
        if self._transport is None or self._transport.is_closing():
            return
        if self._must_wait() or (self._other is not None and self._other._full):  # noqa: SLF001 - of its own kind
            self._transport.pause_reading()
        else:
            self._transport.resume_reading()

    def write(self, data: bytes) -> None:
        if self._transport is not None and not self._transport.is_closing():
            self._transport.write(data)

    def close(self) -> None:
        if self._transport is not None:
            self._transport.close()

    def abort(self) -> None:
        if self._transport is not None:
            self._transport.abort()

    def _blocked(self) -> bool:
        return self._line.mode is Mode.HANG

    def _must_wait(self) -> bool:
        return self._other is None or self._blocked()

    def _take(self, data: bytes | None) -> None:
        if self._held or self._must_wait():
            self._held.append(data)
        else:
            self._pass(data)

    def _pass(self, data: bytes | None) -> None:
        """At once, or after the delay; and never before what came earlier."""
        if self._late or self._line.mode is Mode.DELAY:
            self._late.append((asyncio.get_running_loop().time() + self._line.delay_seconds, data))
            if len(self._late) == 1:
                self._wait()
        else:
            self._hand_over(data)

    def _wait(self) -> None:
        asyncio.get_running_loop().call_at(self._late[0][0], self._pass_late)

    def _pass_late(self) -> None:
        self._hand_over(self._late.popleft()[1])
        if self._late:
            self._wait()

    def _hand_over(self, data: bytes | None) -> None:
        if self._other is None:
            return
        if data is None:
            self._other.close()
        else:
            self._other.write(data)


class _Near(_Side):
    """The client's half."""

    connecting: asyncio.Task[None] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        self.choose_reading()
        if self._line.mode is Mode.REFUSE:
            self.abort()
        else:
            self._line.connect(self)


class _Far(_Side):
    """The server's half."""

    def __init__(self, line: BadLine, near: _Near) -> None:
        super().__init__(line)
        self._near = near

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        self.join(self._near)
        self._near.join(self)

    def _blocked(self) -> bool:
        return self._line.mode in (Mode.HANG, Mode.ONE_WAY)
