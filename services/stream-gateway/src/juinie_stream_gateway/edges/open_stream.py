"""A stream whose head is out, until its connection is over.

It has a task only while something is to be waited for: while it catches up, while its client is behind, while it ends. A watcher that is
live and keeps up is written to by the hub, and rests: it is an object in its room and nothing else. Whatever the hub's writing
cannot do wakes its outlet, which gives it a task again.
"""

import time
from asyncio import TimerHandle, create_task, get_running_loop
from typing import Any

from juinie_shared.domain.errors import Draining
from juinie_shared.runtime.logs import get_logger
from juinie_shared.runtime.pace import Pace, a_few_a_turn
from juinie_stream_gateway.core.backfill import INTERNAL
from juinie_stream_gateway.core.follow import Follower
from juinie_stream_gateway.core.hub import SLICE
from juinie_stream_gateway.core.places import Place, Places
from juinie_stream_gateway.core.start import Start
from juinie_stream_gateway.core.watcher import Watcher
from juinie_stream_gateway.edges.admit import Admitted
from juinie_stream_gateway.edges.connection import HttpConnection, Receive, Send
from juinie_stream_gateway.edges.outlet import ENDED, LEFT, OutletLimits, ResponseOutlet
from juinie_stream_gateway.edges.trace import RequestTrace, tell_failed
from juinie_stream_gateway.telemetry import LOG_STREAM_ENDED, LOG_STREAM_FAILED, Telemetry

CREDENTIAL = "credential"
OVER_AT_ONCE = 32
"""Streams that are over, by their client or by us, and are ended in one turn of the loop: each is 30 to 70 µs of it."""

_log = get_logger("stream")


class OpenStreams:
    """All of them. `drain` sends every watcher away; who comes later is sent away as it comes."""

    def __init__(
        self, follower: Follower, telemetry: Telemetry, limits: OutletLimits, places: Places
    ) -> None:
        self.follower, self.telemetry, self.limits, self.places = follower, telemetry, limits, places
        self.over = Pace(OVER_AT_ONCE)
        self.draining = False
        self._outlets: set[ResponseOutlet] = set()
        telemetry.streams_open.set_function(lambda: len(self._outlets))
        telemetry.unsent_bytes.set_function(lambda: sum(outlet.held_bytes for outlet in self._outlets))

    async def drain(self) -> None:
        """Every watcher is told to come back (elsewhere), at its own moment."""
        self.draining = True
        async for outlet in a_few_a_turn(list(self._outlets), SLICE):
            outlet.reconnect(Draining.code)

    def began(self, outlet: ResponseOutlet) -> None:
        self._outlets.add(outlet)
        if self.draining:  # since it was let in
            outlet.reconnect(Draining.code)

    def is_over(self, outlet: ResponseOutlet, place: Place, reason: str) -> None:
        self._outlets.discard(outlet)
        self.places.give_back(place)
        self.telemetry.streams_closed.labels(reason).inc()


class OpenStream:
    """One of them. Its `place` is given back when it is over, and its `trace` told."""

    __slots__ = (
        "_began", "_connection", "_expiry", "_leaving", "_outlet", "_place", "_room", "_streams", "_trace", "_watcher",
    )  # fmt: skip

    def __init__(
        self, streams: OpenStreams, connection: HttpConnection, admitted: Admitted, start: Start, place: Place,
        trace: RequestTrace,
    ) -> None:  # fmt: skip
        self._streams, self._connection, self._place, self._trace = streams, connection, place, trace
        self._began = time.monotonic()
        self._outlet = outlet = ResponseOutlet(connection, streams.limits)
        self._watcher = Watcher(outlet, start, admitted.types)
        self._expiry = _expire(outlet, admitted.caller.expires_in_seconds)
        told = connection.when_left(outlet.left)
        self._leaving = None if told else create_task(self._until_left())
        connection.when_slow(outlet.give_up)
        holder = admitted.caller.principal
        self._room = streams.follower.join(admitted.run_id, holder.tenant_id, holder.key_id, self._watcher)
        streams.began(outlet)

    async def run(self, receive: Receive, send: Send) -> None:
        """Go on until it rests, or is over."""
        self._connection.goes_on_by(receive, send)
        rests = False
        try:
            rests = await self._go_on()
        except Exception as error:
            self._end(error)
            rests = True
            raise
        finally:
            if not rests:
                self._end()

    async def _go_on(self) -> bool:
        """False: the connection is over, ended in the way that fits."""
        while await self._fed():
            if self._connection.may_rest:
                self._outlet.rest(self._wake)
                return True
            await self._outlet.wait()
        self._streams.follower.leave(self._room, self._watcher)
        await self._outlet.flush()
        if self._outlet.closing == ENDED:
            await self._outlet.send_last_chunk()
        elif self._outlet.closing != LEFT:
            await self._connection.cut()
        return False

    async def _fed(self) -> bool:
        """Feed the watcher. False: its stream is over."""
        try:
            return await self._streams.follower.follow(self._room, self._watcher)
        except Exception:  # noqa: BLE001 - a fault of ours is never a silent end
            _log.exception(LOG_STREAM_FAILED, run_id=str(self._room.run_id))
            self._outlet.reconnect(INTERNAL)
            return False

    def _wake(self) -> None:
        if self._outlet.closing is None:
            self._connection.wake(self.run)
        else:
            self._streams.over.do(self._finish)

    def _finish(self) -> None:
        """In its turn. The client may have left since: then there is nothing to wait for, and no connection to go on by."""
        if self._outlet.gone:
            self._end()
        else:
            self._connection.wake(self.run)

    async def _until_left(self) -> None:
        """Tell the outlet when the client has gone, where the connection does not."""
        await self._connection.until_disconnected()
        self._outlet.left()

    def _end(self, error: Exception | None = None) -> None:
        self._streams.follower.leave(self._room, self._watcher)
        self._connection.when_slow(None)
        self._connection.when_left(None)
        if self._leaving is not None:
            self._leaving.cancel()
        if self._expiry is not None:
            self._expiry.cancel()
        self._outlet.settle()
        self._tell_end(self._outlet.closing or INTERNAL, error)

    def _tell_end(self, reason: str, error: Exception | None) -> None:
        facts: dict[str, Any] = {
            "run_id": str(self._room.run_id),
            "after_seq": self._watcher.first_position,
            "last_seq": self._watcher.position,
            "refills": self._watcher.refills,
            "reason": reason,
        }
        self._streams.is_over(self._outlet, self._place, reason)
        with self._trace.told(facts) as span:
            if error is not None:
                tell_failed(span, error)
            _log.info(LOG_STREAM_ENDED, **facts, duration_seconds=round(time.monotonic() - self._began, 3))


def _expire(outlet: ResponseOutlet, seconds: float | None) -> TimerHandle | None:
    """A stream ends with the token that opened it."""
    if seconds is None:
        return None
    return get_running_loop().call_later(seconds, outlet.reconnect, CREDENTIAL)
