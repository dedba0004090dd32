"""`GET /v1/runs/{run_id}/stream`, as pure ASGI: the handshake.

Only what is wrong for good is answered with another status than 200, because EventSource never retries those. The
body ends cleanly only after `stream.end`; in every other case the connection is cut without the last chunk, so that
no client takes it for success.
"""

from typing import Any

from juinie_shared.contracts.sse import MEDIA_TYPE, preamble
from juinie_shared.domain.errors import Draining, Permanent, Transient
from juinie_shared.domain.ids import RunId, parse_run_id
from juinie_shared.runtime.logs import get_logger
from juinie_stream_gateway.core.backfill import INTERNAL
from juinie_stream_gateway.core.places import Place
from juinie_stream_gateway.core.watcher import RETRY_MS
from juinie_stream_gateway.edges.admit import Admitted, Gate
from juinie_stream_gateway.edges.connection import Headers, HttpConnection, Receive, Send
from juinie_stream_gateway.edges.open_stream import OpenStream, OpenStreams
from juinie_stream_gateway.edges.outlet import ResponseOutlet
from juinie_stream_gateway.edges.problems import refusal
from juinie_stream_gateway.edges.trace import RequestTrace
from juinie_stream_gateway.telemetry import LOG_STREAM_FAILED, LOG_STREAM_REFUSED

_HEADERS = (
    (b"content-type", MEDIA_TYPE.encode()),
    (b"cache-control", b"no-store, no-transform"),
    (b"x-accel-buffering", b"no"),
    (b"referrer-policy", b"no-referrer"),
)
_log = get_logger("stream")


class StreamRoute:
    """The ASGI application of the route."""

    def __init__(self, gate: Gate, streams: OpenStreams) -> None:
        self._gate = gate
        self._streams = streams
        self._telemetry = streams.telemetry

    async def __call__(
        self, scope: dict[str, Any], receive: Receive, send: Send, run_text: str, marks: Headers
    ) -> None:
        """Answer one request, with `marks` on the answer. A stream then goes on by itself: what it took to get there is let go of."""
        trace = RequestTrace(self._telemetry.tracer, scope["headers"])
        connection = HttpConnection(scope, receive, send, marks)
        try:
            admitted, place = await self._let_in(scope, run_text)
        except Exception as error:  # noqa: BLE001 - all of them are answered
            with trace.told():
                await self._turn_away(connection, run_text, error)
            return
        if admitted.start is None or place is None:
            with trace.told():
                await connection.answer(204, [(b"cache-control", b"no-store")], b"")
            return
        try:
            await connection.start(_stream_headers(admitted.run_id))
            opened = OpenStream(self._streams, connection, admitted, admitted.start, place, trace)
        except BaseException:
            self._streams.places.give_back(place)
            raise
        await connection.afterwards(opened.run)

    async def _let_in(self, scope: dict[str, Any], run_text: str) -> tuple[Admitted, Place | None]:
        """The handshake. A stream gets a place, which is given back when it is over; an answer without a stream needs none."""
        if self._streams.draining:  # who comes at the last call is not kept until it is over
            raise Draining
        admitted = await self._gate.admit(scope, run_text)
        if self._streams.draining:
            raise Draining
        places = self._streams.places
        return admitted, places.take(admitted.caller.principal, admitted.run_id) if admitted.start else None

    async def _turn_away(self, connection: HttpConnection, run_text: str, error: Exception) -> None:
        if isinstance(error, Permanent):
            answer = refusal(error)
            _log.info(LOG_STREAM_REFUSED, status=answer.status, code=error.code)
            await connection.answer(answer.status, answer.raw_headers(), answer.body)
        elif isinstance(error, Transient):
            await self._send_away(connection, run_text, error.code)
        else:  # a fault of ours is told as a passing state, and logged
            _log.error(LOG_STREAM_FAILED, exc_info=error)
            await self._send_away(connection, run_text, INTERNAL)

    async def _send_away(self, connection: HttpConnection, run_text: str, reason: str) -> None:
        """A passing state: 200, come back, and a cut."""
        _log.info(LOG_STREAM_REFUSED, status=200, code=reason)
        self._telemetry.streams_closed.labels(reason).inc()
        await connection.start(_stream_headers(parse_run_id(run_text)))
        outlet = ResponseOutlet(connection, self._streams.limits)
        outlet.write(preamble(RETRY_MS))
        outlet.reconnect(reason)
        await outlet.flush()
        await connection.cut()
        outlet.settle()


def _stream_headers(run_id: RunId | None) -> Headers:
    return [*_HEADERS, (b"location", f"/v1/runs/{run_id}/stream".encode())] if run_id else [*_HEADERS]
