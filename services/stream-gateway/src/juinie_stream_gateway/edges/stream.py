"""`GET /v1/runs/{run_id}/stream`, as pure ASGI: the handshake, and how a stream's connection ends.

Only what is wrong for good is answered with another status than 200, because EventSource never retries those. The
body ends cleanly only after `stream.end`; in every other case the connection is cut without the last chunk, so that
no client takes it for success.
"""

import asyncio
import time
from dataclasses import dataclass
from functools import partial
from typing import Any

from opentelemetry import trace
from opentelemetry.context import attach, detach
from opentelemetry.trace import Span, SpanKind, StatusCode
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from juinie_shared.contracts.sse import MEDIA_TYPE, preamble
from juinie_shared.domain.errors import DatabaseBusy, Draining, Permanent, Transient
from juinie_shared.domain.ids import RunId, parse_run_id
from juinie_shared.runtime.logs import get_logger
from juinie_shared.runtime.problems import Problem
from juinie_stream_gateway.core.follow import Follower
from juinie_stream_gateway.core.places import Place, Places
from juinie_stream_gateway.core.start import Start
from juinie_stream_gateway.core.watcher import RETRY_MS, Watcher
from juinie_stream_gateway.edges.admit import Admitted, Gate
from juinie_stream_gateway.edges.connection import HttpConnection, Receive, Send
from juinie_stream_gateway.edges.outlet import ENDED, LEFT, OutletLimits, ResponseOutlet
from juinie_stream_gateway.edges.problems import refusal
from juinie_stream_gateway.telemetry import (
    LOG_STREAM_ENDED,
    LOG_STREAM_FAILED,
    LOG_STREAM_REFUSED,
    SPAN_STREAM,
    Telemetry,
)

LET_IN_AT_ONCE = 64
"""Who comes is let in so many at a time: ten thousand at once would hold up those who are there already, for seconds."""
LET_IN_SECONDS = 10.0
"""How long one may wait for that. It gets this long only when the database hardly answers."""

CREDENTIAL = "credential"
INTERNAL = "internal"

_PROPAGATOR = TraceContextTextMapPropagator()
_log = get_logger("stream")


@dataclass(frozen=True, slots=True)
class _Opened:
    """A stream whose head is out. Its `place` is to be given back."""

    connection: HttpConnection
    admitted: Admitted
    start: Start
    place: Place


class StreamRoute:
    """The ASGI application of the route. `drain` sends all watchers away and lets nobody in."""

    def __init__(
        self,
        gate: Gate,
        follower: Follower,
        telemetry: Telemetry,
        limits: OutletLimits,
        places: Places,
    ) -> None:
        self._gate = gate
        self._follower = follower
        self._telemetry = telemetry
        self._limits = limits
        self._places = places
        self._open: set[ResponseOutlet] = set()
        self._draining = False
        self._letting_in = asyncio.Semaphore(LET_IN_AT_ONCE)
        telemetry.unsent_bytes.set_function(lambda: sum(outlet.held_bytes for outlet in self._open))

    def drain(self) -> None:
        """Every watcher is told to come back (elsewhere), at its own moment; new ones likewise."""
        self._draining = True
        for outlet in list(self._open):
            outlet.reconnect(Draining.code)

    async def __call__(self, scope: dict[str, Any], receive: Receive, send: Send, run_text: str) -> None:
        """Answer one request. A stream then goes on by itself: what it took to get there is let go of."""
        parent = _PROPAGATOR.extract(
            {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}
        )
        span = self._telemetry.tracer.start_span(SPAN_STREAM, parent, SpanKind.SERVER)
        connection = HttpConnection(scope, receive, send)
        opened: _Opened | None = None
        current = attach(trace.set_span_in_context(span, parent))
        try:
            opened = await self._open_one(scope, connection, run_text)
        except Exception as error:
            _tell_failed(span, error)
            raise
        finally:
            detach(current)
            if opened is None:
                span.end()
        if opened is not None:
            await connection.afterwards(partial(self._run, opened, span))

    async def _open_one(
        self, scope: dict[str, Any], connection: HttpConnection, run_text: str
    ) -> _Opened | None:
        """The handshake. None: it was answered without a stream."""
        try:
            await self._turn()
            try:
                admitted = await self._gate.admit(scope, run_text)
            finally:
                self._letting_in.release()
            place = self._place_for(admitted)
        except Permanent as error:
            await self._refuse(connection, refusal(error), error.code)
        except Transient as error:
            await self._send_away(connection, run_text, error.code)
        except Exception:  # noqa: BLE001 - a fault of ours is told as a passing state, and logged
            _log.exception(LOG_STREAM_FAILED)
            await self._send_away(connection, run_text, INTERNAL)
        else:
            return await self._answer(connection, admitted, place)
        return None

    async def _turn(self) -> None:
        """Wait to be let in. In order, but for who gives up.

        Raises:
            DatabaseBusy: it took too long.
        """
        if not self._letting_in.locked():
            await self._letting_in.acquire()
            return
        try:
            async with asyncio.timeout(LET_IN_SECONDS):
                await self._letting_in.acquire()
        except TimeoutError as error:
            raise DatabaseBusy from error

    def _place_for(self, admitted: Admitted) -> Place | None:
        """Taken, and given back when the stream is over; an answer without a stream needs none."""
        if self._draining:
            raise Draining
        return self._places.take(admitted.caller.principal, admitted.run_id) if admitted.start else None

    async def _refuse(self, connection: HttpConnection, answer: Problem, code: str) -> None:
        _log.info(LOG_STREAM_REFUSED, status=answer.status, code=code)
        await connection.answer(answer.status, answer.raw_headers(), answer.body)

    async def _send_away(self, connection: HttpConnection, run_text: str, reason: str) -> None:
        """A passing state: 200, come back, and a cut."""
        _log.info(LOG_STREAM_REFUSED, status=200, code=reason)
        self._telemetry.streams_closed.labels(reason).inc()
        await connection.start(_stream_headers(parse_run_id(run_text)))
        outlet = ResponseOutlet(connection, self._limits)
        outlet.write(preamble(RETRY_MS))
        outlet.reconnect(reason)
        await outlet.flush()
        await connection.cut()
        outlet.settle()

    async def _answer(
        self, connection: HttpConnection, admitted: Admitted, place: Place | None
    ) -> _Opened | None:
        if admitted.start is None or place is None:
            await connection.answer(204, [(b"cache-control", b"no-store")], b"")
            return None
        try:
            await connection.start(_stream_headers(admitted.run_id))
        except BaseException:
            self._places.give_back(place)
            raise
        return _Opened(connection, admitted, admitted.start, place)

    async def _run(self, opened: _Opened, span: Span) -> None:
        """A stream, from its head to its end."""
        current = attach(trace.set_span_in_context(span))  # by hand: with `use_span`, two generators a stream
        try:
            await self._stream(opened.connection, opened.admitted, opened.start)
        except Exception as error:
            _tell_failed(span, error)
            raise
        finally:
            self._places.give_back(opened.place)
            detach(current)
            span.end()

    async def _stream(self, connection: HttpConnection, admitted: Admitted, start: Start) -> None:
        outlet = ResponseOutlet(connection, self._limits)
        began = time.monotonic()
        self._open.add(outlet)
        self._telemetry.streams_open.inc()
        watcher = Watcher(outlet, start, admitted.types)
        if self._draining:  # since it was let in
            outlet.reconnect(Draining.code)
        try:
            await self._serve(connection, admitted, watcher, outlet)
        finally:
            self._open.discard(outlet)
            self._telemetry.streams_open.dec()
            self._tell_end(admitted, watcher, outlet.closing or INTERNAL, time.monotonic() - began)

    async def _serve(
        self, connection: HttpConnection, admitted: Admitted, watcher: Watcher, outlet: ResponseOutlet
    ) -> None:
        """Stream until it is over, then end the connection in the way that fits."""
        expiry = _expire(outlet, admitted.caller.expires_in_seconds)
        told = connection.when_left(outlet.left)
        leaving = None if told else asyncio.create_task(_until_left(connection, outlet))
        connection.when_slow(outlet.give_up)
        try:
            await self._follow(admitted, watcher)
            await outlet.flush()
            if outlet.closing == ENDED:
                await outlet.send_last_chunk()
            elif outlet.closing != LEFT:
                await connection.cut()
        finally:
            connection.when_slow(None)
            connection.when_left(None)
            if leaving is not None:
                leaving.cancel()
            if expiry is not None:
                expiry.cancel()
            outlet.settle()

    async def _follow(self, admitted: Admitted, watcher: Watcher) -> None:
        holder = admitted.caller.principal
        try:
            await self._follower.follow(admitted.run_id, holder.tenant_id, holder.key_id, watcher)
        except Exception:  # noqa: BLE001 - as above: never a silent end
            _log.exception(LOG_STREAM_FAILED, run_id=str(admitted.run_id))
            watcher.outlet.reconnect(INTERNAL)

    def _tell_end(self, admitted: Admitted, watcher: Watcher, reason: str, seconds: float) -> None:
        facts: dict[str, Any] = {
            "run_id": str(admitted.run_id),
            "after_seq": watcher.first_position,
            "last_seq": watcher.position,
            "refills": watcher.refills,
            "reason": reason,
        }
        trace.get_current_span().set_attributes(facts)
        self._telemetry.streams_closed.labels(reason).inc()
        _log.info(LOG_STREAM_ENDED, **facts, duration_seconds=round(seconds, 3))


def _tell_failed(span: Span, error: Exception) -> None:
    span.record_exception(error)
    span.set_status(StatusCode.ERROR, type(error).__name__)


async def _until_left(connection: HttpConnection, outlet: ResponseOutlet) -> None:
    """Tell the outlet when the client has gone."""
    await connection.until_disconnected()
    outlet.left()


def _expire(outlet: ResponseOutlet, seconds: float | None) -> asyncio.TimerHandle | None:
    """A stream ends with the token that opened it."""
    if seconds is None:
        return None
    return asyncio.get_running_loop().call_later(seconds, outlet.reconnect, CREDENTIAL)


def _stream_headers(run_id: RunId | None) -> list[tuple[bytes, bytes]]:
    headers = [
        (b"content-type", MEDIA_TYPE.encode()),
        (b"cache-control", b"no-store, no-transform"),
        (b"x-accel-buffering", b"no"),
        (b"referrer-policy", b"no-referrer"),
    ]
    return [*headers, (b"location", f"/v1/runs/{run_id}/stream".encode())] if run_id else headers
