"""Where a watcher's bytes go: straight to the transport while its client keeps up, and through ASGI's `send` otherwise.

The hub writes without waiting. What the transport does not take at once (its client is behind, the head is not out, or the
server lends none) is kept, and flushed by the connection's own task; until that is done, what follows waits behind it.

Bounded for one who does not read: what waits here, in the task's hand and in the server's transport counts together
against `buffer_bytes`. Above it, live events pass the watcher by; it reads them again, from the run's tail or from
Postgres, once it has taken what it was given.
"""

import asyncio
import random
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

from juinie_shared.contracts.sse import reconnect_frame
from juinie_shared.runtime.direct_body import chunk
from juinie_stream_gateway.edges.connection import HttpConnection

SLOW = "slow"
LEFT = "client_left"
ENDED = "ended"
SPREAD_MS = (1000, 5000)
"""Clients that are sent away together shall not come back together."""
CHUNK_BYTES = 64 * 1024
"""Sent at once, and what the server's transport takes before it makes `send` wait (uvicorn's high-water mark)."""


@dataclass(frozen=True, slots=True)
class OutletLimits:
    """`buffer_bytes`: unsent bytes above which the outlet is full. `close_seconds`: how long the last frame may take."""

    buffer_bytes: int = 256 * 1024
    close_seconds: float = 2.0


class ResponseOutlet:
    """An outlet on an ASGI response whose start has been sent. `connection.abort` cuts the connection, read or not."""

    __slots__ = (
        "_connection", "_in_hand_bytes", "_last_call", "_limits", "_on_wake", "_sending", "_unsent", "_unsent_bytes", "_waiting", "closing", "gone", "line",
        "written_bytes",
    )  # fmt: skip

    def __init__(self, connection: HttpConnection, limits: OutletLimits) -> None:
        self._connection = connection
        self.line = connection.line
        self._limits = limits
        self._unsent: list[bytes] = []
        self._unsent_bytes = 0
        self._in_hand_bytes = 0
        self._waiting: asyncio.Future[None] | None = None
        self._on_wake: Callable[[], None] | None = None
        self._sending: asyncio.Timeout | None = None
        self._last_call: asyncio.TimerHandle | None = None
        self.closing: str | None = None
        self.gone = False
        """The client has left, whatever the reason to close was."""
        self.written_bytes = 0

    @property
    def held_bytes(self) -> int:
        """All that this process keeps for the client until it reads."""
        return self._unsent_bytes + self._in_hand_bytes + self._connection.unsent_bytes()

    @property
    def idle(self) -> bool:
        return not self._unsent and self.closing is None

    @property
    def full(self) -> bool:
        keeps_up = not self._unsent and not self.line.behind
        return not keeps_up and self.held_bytes > self._limits.buffer_bytes

    def write(self, data: bytes) -> None:
        """Whole frames, now or with the next flush. After a reason to close, nothing more is taken."""
        if self.closing is None:
            self._put(data)

    def write_each(self, frames: Sequence[bytes]) -> None:
        """As `write`, of frames that others are given as well: joined only as far as they go out now."""
        if self.closing is not None or not frames:
            return
        if self.line.write is not None and sum(map(len, frames)) <= CHUNK_BYTES:
            self._put(b"".join(frames))
        else:
            for frame in frames:
                self._append(frame)
            while self._unsent and self.line.write is not None:
                self.line.write(chunk(self._take()))
            if self._unsent:
                self._wait_for_flush()

    def finish(self) -> None:
        self._close(ENDED)

    def reconnect(self, reason: str) -> None:
        """Say so in a last frame, and see that the connection is gone soon, whether or not it is read."""
        if self.closing is None:
            self._put(reconnect_frame(random.randint(*SPREAD_MS), reason))  # noqa: S311 - a spread, no secret
            self._close(reason)
            loop = asyncio.get_running_loop()
            self._last_call = loop.call_later(self._limits.close_seconds, self._connection.abort)

    def left(self) -> None:
        """The client has gone: nothing that is unsent matters."""
        self.gone = True
        self._drop()
        self._close(LEFT)
        self.settle()

    def settle(self) -> None:
        """The connection is over: nothing is left to abort."""
        if self._last_call is not None:
            self._last_call.cancel()

    def give_up(self) -> None:
        """The client takes too little of what it is sent: tell it to reconnect, and cut it."""
        if self._sending is not None:
            self._sending.reschedule(asyncio.get_running_loop().time())
        elif self.closing is None:
            self._give_up()

    async def flush(self) -> None:
        """Send what is kept, and wait until the transport has passed on most of all: nobody fetches more before that."""
        self.line.go()
        while True:
            while self._unsent:
                await self._send(self._take())
            if self._connection.unsent_bytes() > CHUNK_BYTES:
                await self._send(b"")  # only waits
            if not self._unsent:
                break
        if self.closing is None:
            self.line.release()

    async def send_last_chunk(self) -> None:
        """End the body: only after `stream.end` went out. Who takes not even that is cut."""
        try:
            await self._patiently(self._connection.send_end())
        except TimeoutError:
            self._connection.abort()

    async def wait(self, seconds: float | None = None) -> None:
        if not self.idle:
            return
        loop = asyncio.get_running_loop()
        self._waiting = loop.create_future()
        timer = loop.call_later(seconds, self.wake) if seconds is not None else None
        try:
            await self._waiting
        finally:
            self._waiting = None
            if timer is not None:
                timer.cancel()

    def rest(self, on_wake: Callable[[], None]) -> None:
        """Nobody waits any more: call this instead, once."""
        self._on_wake = on_wake

    def wake(self) -> None:
        if self._waiting is not None and not self._waiting.done():
            self._waiting.set_result(None)
        if self._on_wake is not None:
            on_wake, self._on_wake = self._on_wake, None
            on_wake()

    async def _send(self, data: bytes) -> None:
        self._in_hand_bytes = len(data)
        try:
            await self._patiently(self._connection.send_body(data))
        except TimeoutError:
            self._give_up()
        finally:
            self._in_hand_bytes = 0

    async def _patiently(self, sending: Awaitable[None]) -> None:
        """For as long as it takes, unless the client is given up: TimeoutError."""
        try:
            async with asyncio.timeout(None) as self._sending:
                await sending
        finally:
            self._sending = None

    def _put(self, data: bytes) -> None:
        if self.line.write is not None:
            self.written_bytes += len(data)
            self.line.write(chunk(data))
        else:
            self._append(data)
            self._wait_for_flush()

    def _append(self, data: bytes) -> None:
        self._unsent.append(data)
        self._unsent_bytes += len(data)
        self.written_bytes += len(data)

    def _wait_for_flush(self) -> None:
        """What comes next comes after what is kept."""
        self.line.hold()
        self.wake()

    def _take(self) -> bytes:
        """The next chunk: whole pieces, so that a cut never falls into a frame."""
        count, size = 1, len(self._unsent[0])
        while count < len(self._unsent) and size + len(self._unsent[count]) <= CHUNK_BYTES:
            size += len(self._unsent[count])
            count += 1
        pieces, self._unsent[:count] = self._unsent[:count], []
        self._unsent_bytes -= size
        return b"".join(pieces)

    def _give_up(self) -> None:
        """Frames are lost to this client, be it the end itself: so its stream has not ended, whatever was written."""
        self._drop()
        if self.closing == ENDED:
            self.closing = None
        self.reconnect(SLOW)

    def _drop(self) -> None:
        self._unsent.clear()
        self._unsent_bytes = 0

    def _close(self, reason: str) -> None:
        self.closing = self.closing or reason
        self._wait_for_flush()
