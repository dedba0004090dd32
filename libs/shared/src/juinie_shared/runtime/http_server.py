"""One HTTP server for all services: uvicorn, with the limits that it lacks, and with signals left to us.

Limits on what arrives before any application runs: the size and number of headers, the time they take, and a body
that stalls; and on answers that are not read (`runtime/slow_readers.py`). uvicorn alone waits for ever in each case. Refused
besides: what a proxy in front may read otherwise.

It stops with a last call, so that a rolling restart fails no request: the port stays open for a moment, in which every
answer is the last one of its connection; then what rests is closed, and never while a request lies unread.
"""

import asyncio
import contextlib
import re
import resource
import select
import socket
from collections.abc import Awaitable, Callable, Coroutine, Generator, Sequence
from contextvars import Context, copy_context
from dataclasses import dataclass, replace
from functools import partial
from itertools import chain, islice
from typing import Any, ClassVar, Self, SupportsIndex, cast, override

import uvicorn
from uvicorn.protocols.http.flow_control import HIGH_WATER_LIMIT, FlowControl
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol, RequestResponseCycle

from juinie_shared.runtime.cors import Cors
from juinie_shared.runtime.direct_body import DirectBody
from juinie_shared.runtime.doorstep import INSIDE, Doorstep
from juinie_shared.runtime.hand_over import (
    AT_ONCE,
    LAST_HOP,
    MOST_HOPS,
    Handed,
    hand,
    hand_on,
    handed,
    round_from,
)
from juinie_shared.runtime.lean_event import LeanEvent
from juinie_shared.runtime.one_write import OneWrite
from juinie_shared.runtime.port import BACKLOG, take_port
from juinie_shared.runtime.problems import Problem, problem
from juinie_shared.runtime.sibling import Sibling
from juinie_shared.runtime.slow_readers import Reader, SlowReaders
from juinie_shared.runtime.tcp import cut

OWN_DESCRIPTORS = 256
"""What a process needs beside its clients' connections: to Postgres, Kafka, a collector, its siblings, and for files."""
FIRST_AT_ONCE = 8
"""Of a crowd that comes, so many are read in one turn of the loop: each is 100 to 200 µs of it, with the first steps of its answer."""
LET_IN_SECONDS = 1.0
"""Has who is let in, at least, for what is left of its headers."""
FEW_PIPELINED = 4
FEW_PIPELINED_BYTES = 4096
KEEP_ALIVE_SECONDS = 75
"""Longer than proxies keep idle connections (nginx: 60 s): or one would send a request into a connection that we close."""
_NOSNIFF = ("X-Content-Type-Options", "nosniff")
"""On every answer, whoever gives it: no browser is to take it for what it does not say it is."""

_LAST = {"Connection": "close", "Vary": "Origin", **dict([_NOSNIFF])}
_HOST = re.compile(rb"[A-Za-z0-9._~%!$&'()*+;=:\[\]-]*")
"""A host and a port (RFC 3986 §3.2.2). No comma: it would be two headers that somebody put together."""
_SPACE = b" \t"
_NO_BODY = bytearray()
_FRAMING = frozenset({b"content-length", b"transfer-encoding"})


@dataclass(frozen=True, slots=True)
class HttpLimits:
    """What a client may send before its request is looked at, and how long it may take."""

    head_bytes: int = 32 * 1024
    headers: int = 100
    pipelined: int = 200
    """Requests of a connection that wait for the answer before them. They come many in one read, and each is ten times as large once it is read."""
    pipelined_in_all: int = 10_000
    """Those of all connections. Above that, each may still have a few."""
    pipelined_bytes_in_all: int = 32 * 1024 * 1024
    """Of their bodies, as far as they were read before that of the one in front stopped it. Above that, each connection may still have a few."""
    head_seconds: float = 10.0
    body_stall_seconds: float = 30.0
    body_bytes_per_second: int = 4096
    """What a body has to come with on average, once it has had the time that it may stall: none is held for long by drops."""
    body_seconds: float = 300.0
    """A whole body, however steadily it comes."""
    connections: int = 12_000
    """Open at once; one more is closed as it comes."""
    unread_seconds: float = 30.0
    """How long a client may take too little of what it is sent: see `SlowReaders`."""
    unread_bytes: int | None = None
    """What may wait for all clients that are behind."""


type _Rest = Callable[[Any, Any], Coroutine[Any, Any, None]]
"""What goes on with an answer, by what it is to `receive` and `send`."""


class _HeadTooLarge(Exception):
    pass


class _Ambiguous(Exception):
    """A proxy in front may take this for another request than we do."""


class _TooManyWait(Exception):
    """Requests, behind others."""


class GuardedProtocol(HttpToolsProtocol):
    """uvicorn's HTTP/1.1 protocol with `HttpLimits`.

    `scope["extensions"]["juinie.transport"]` has the connection's transport, for closing it; `when_slow`: what to call,
    instead of cutting the connection, while its client does not read; `when_left`: what to call when it has gone; `afterwards`: what
    goes on with the answer when the application has returned, and may return itself and be followed by another, later; and `body`, which
    gives the answer's `DirectBody`. Among siblings also `hand_over`, which lets one of them go on with the connection, and `hops`, how often
    that was done already.
    """

    limits: ClassVar[HttpLimits] = HttpLimits()
    readers: "ClassVar[SlowReaders[GuardedProtocol] | None]" = None
    cors: ClassVar[Cors | None] = None
    queues: "ClassVar[_Queues]"
    context: ClassVar[Context]
    """Of the server. A request is begun in no other: what another one, or an event on its way, has around it is not its own."""
    inboxes: ClassVar[Sequence[socket.socket]] = ()
    """Of all siblings, by index; of none where this process is alone."""
    doorstep: "ClassVar[Doorstep]"
    """Of those who come."""
    last_call: ClassVar[bool] = False
    """Every answer closes its connection and says so, once this is set on the class."""

    __slots__ = (
        "_body", "_body_due", "_body_until", "_goes_on", "_handed", "_head_bytes", "_hops", "_in_body", "_in_head", "_last_answer", "_on_left", "_on_slow", "_place",
        "_rest", "_running", "_tended", "_timer", "_too_large", "_too_many", "_trailer_bytes", "_trailers", "reader",
    )  # fmt: skip
    # With uvicorn's own they would be too many for the compact form that Python keeps few attributes in: 1 KB more a connection.

    def __init__(self, *args: Any, **named: Any) -> None:
        super().__init__(*args, **named)
        self.reader = Reader()
        self._in_head, self._in_body = True, False
        self._handed = b""
        """The head of a request that a sibling read on this connection: it comes before all that is read here."""
        self._hops = 0
        """How often siblings handed this connection over, for the request that is being read or answered."""
        self._place: int | None = None
        """On the doorstep. None: it has asked already, or has just come."""
        self._head_bytes = 0
        """Arrived since the last byte of a body: a head, or the framing and trailers of chunks."""
        self._too_large = self._too_many = False
        self._trailers = self._trailer_bytes = 0
        self._timer: asyncio.TimerHandle | None = None
        self._body_until = 0.0
        self._body_due = 0.0
        """When the body has to be there, by how much of it has come; and at the latest `_body_until`."""
        self._running: RequestResponseCycle | None = None
        """The request that is being answered; `cycle` is the newest one, which may still be in the queue behind it."""
        self._body: DirectBody | None = None
        """What the request that is being answered has borrowed."""
        self._last_answer: bytes | None = None
        """Refuses what cannot be read, once all that came before it is answered. Nothing more is read then."""
        self._on_slow: Callable[[], None] | None = None
        """What a request has asked to be called: a stream tells its client why."""
        self._on_left: Callable[[], None] | None = None
        """Likewise, when the client has gone."""
        self._rest: _Rest | None = None
        """Likewise, with what it is to `receive` and `send` by, once the application has returned."""
        self._goes_on = False
        """The answer that is being given has such a rest: it need not be complete when nothing runs for it."""
        self._tended: RequestResponseCycle | None = None
        """The request that a task runs for."""

    @staticmethod
    def on_refused() -> None:
        """Called for a connection that is one too many. `HttpServer` puts its own here."""

    @staticmethod
    def on_unread() -> None:
        """Called for a connection that is cut because its client does not read. Likewise."""

    @override
    def connection_made(self, transport: asyncio.Transport) -> None:
        """As uvicorn's, but nobody here wants to know either end's address, which takes five system calls and two sockets to find out."""
        self.connections.add(self)
        self.transport, self.scheme = transport, "http"
        self.pipeline = queue = _Queue(self.queues)  # pyright: ignore[reportAttributeAccessIssue] - used as one
        self.flow = _Flow(transport, queue)
        if len(self.connections) > self.limits.connections:
            self.on_refused()
            transport.abort()
        else:
            self._arm(self.limits.head_seconds)
            if self._handed:  # at once: uvloop begins to read behind this, whatever is asked for in it
                head, self._handed = self._handed, b""
                self._read(head)
            else:
                self._place = self.doorstep.come()
                if self._place is None:
                    self.loop.call_soon(self._stay_out)

    @override
    def connection_lost(self, exc: Exception | None) -> None:
        self._disarm()
        self._leave_doorstep()
        self.reader.gone = True
        if self.readers is not None:
            self.readers.caught_up(self)
        if self._running is not None:  # uvicorn tells only the newest
            self._running.disconnected = True
            self._running.message_event.set()
        super().connection_lost(exc)
        self.pipeline.clear()
        self._look_at_body()
        on_left, self._on_left, self._on_slow = self._on_left, None, None
        if on_left is not None:
            on_left()
        self._body = self._running = self.cycle = self.scope = self.headers = None  # pyright: ignore[reportAttributeAccessIssue] - leaves no circle for the collector

    @override
    def data_received(self, data: bytes) -> None:
        if self._place is not None:
            self._leave_doorstep()
        self._read(data)

    def _stay_out(self) -> None:
        """Until it is let in. Not where it was read in between: uvloop begins with that, whatever `connection_made` asks for."""
        if self.cycle is None and not self._head_bytes and not self.transport.is_closing():  # pyright: ignore[reportUnnecessaryComparison] - None before the first request
            descriptor = self.transport.get_extra_info("socket").fileno()
            self._place = self.doorstep.wait(descriptor, self._come_in)
            if self._place is not None:
                self.transport.pause_reading()

    def _come_in(self) -> None:
        """What has come is read in the next turn, whatever time there was for it."""
        self._place = None
        if self._timer is None or self._timer.when() < self.loop.time() + LET_IN_SECONDS:
            self._arm(LET_IN_SECONDS)
        self.transport.resume_reading()

    def _leave_doorstep(self) -> None:
        if self._place is not None:
            self.doorstep.leave(self._place)
            self._place = None

    def _stays_out(self) -> bool:
        return self._place is not None and self._place != INSIDE

    def _read(self, data: bytes) -> None:
        if self.transport.is_closing() or self._last_answer is not None:
            return
        was_in_head = self._in_head
        if self._is_idle():
            self._in_head = True  # empty lines may come before a request (RFC 9112 §2.2), but not for ever
        self._head_bytes += len(data)
        super().data_received(data)
        if self.transport.is_closing() or self._last_answer is not None:
            self._disarm()
        elif (self._in_head or self._in_body) and self._head_bytes > self.limits.head_bytes:
            self._too_large = True
            self._disarm()
            self.send_400_response("")
        elif self._in_head:
            if not was_in_head or self._timer is None:
                self._arm(self.limits.head_seconds)
        elif self._in_body:
            due = min(self._body_due, self._body_until)
            self._arm(min(self.limits.body_stall_seconds, due - self.loop.time()))
        else:
            self._disarm()
            self._rest_if_answered()

    def _rest_if_answered(self) -> None:
        """The answer came before the body was whole, whose last byte this was: uvicorn lets nothing end such a rest."""
        if self._is_idle() and self.cycle is not None and self.timeout_keep_alive_task is None:  # pyright: ignore[reportUnnecessaryComparison] - None before the first request
            self._let_go(self.cycle)
            self.timeout_keep_alive_task = self.loop.call_later(
                self.timeout_keep_alive, self.timeout_keep_alive_handler
            )

    @override
    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._in_head, self._in_body = True, False
        self.scope["extensions"] = {
            "juinie.transport": {
                "transport": self.transport,
                "when_slow": self._when_slow,
                "when_left": self._when_left,
                "afterwards": self._afterwards,
                "body": self._lend_body,
            }
        }
        if self.inboxes:
            self.scope["extensions"]["juinie.transport"] |= {"hand_over": self._hand_over, "hops": self._hops}
            self._hops = 0

    @override
    def on_header(self, name: bytes, value: bytes) -> None:
        """White space around a value is none of it (RFC 9110 §5.5); the parser leaves what stands behind. Trailers are dropped: among the headers
        they would pass for some (§6.5.1)."""
        if self._in_head:
            super().on_header(name, value.rstrip(_SPACE) if value[-1:] in _SPACE else value)
            return
        self._trailers += 1
        self._trailer_bytes += len(name) + len(value)
        if (
            len(self.headers) + self._trailers > self.limits.headers
            or self._trailer_bytes > self.limits.head_bytes
        ):
            self._too_large = True
            raise _HeadTooLarge

    @override
    def on_headers_complete(self) -> None:
        size = len(self.url) + 4 * len(self.headers) + sum(map(len, chain.from_iterable(self.headers)))
        if size > self.limits.head_bytes or len(self.headers) > self.limits.headers:
            self._too_large = True
            raise _HeadTooLarge
        if not self.url.startswith(b"/") or self._hides_a_body() or self._is_ambiguous():
            raise _Ambiguous
        if self._too_many_wait():
            self._too_many = True
            raise _TooManyWait
        self._in_head, self._in_body = False, True
        self._trailers = self._trailer_bytes = 0
        now = self.loop.time()
        self._body_until, self._body_due = (
            now + self.limits.body_seconds,
            now + self.limits.body_stall_seconds,
        )
        super().on_headers_complete()
        if self.last_call:
            self.announce_close()

    @override
    def _start_asgi_task(self, cycle: RequestResponseCycle, app: Any) -> None:
        cycle.message_event = LeanEvent(is_set=cycle.message_event.is_set())
        self._running, self._body, self._rest, self._goes_on = cycle, None, None, False
        OneWrite(cycle)
        self._start_task(cycle, app(cycle.scope, cycle.receive, cycle.send))

    def _start_task(self, cycle: RequestResponseCycle, work: Awaitable[None]) -> None:
        self._tended = cycle
        task = self.loop.create_task(self._run(cycle, work), context=self.context.copy())
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)

    async def _run(self, cycle: RequestResponseCycle, work: Awaitable[None]) -> None:
        """As uvicorn's `run_asgi`, but an answer that goes on need not be complete."""
        try:
            await work
            while self._rest is not None and self._running in (cycle, None):
                rest, self._rest = self._rest, None
                self._let_go(cycle)
                await rest(cycle.receive, cycle.send)
        except BaseException as error:  # noqa: BLE001 - as uvicorn has it: a task that is cancelled leaves no connection behind
            await self._break_off(cycle, "Exception in ASGI application\n", error)
        else:
            if not (self._goes_on or cycle.response_complete or cycle.disconnected):
                await self._break_off(cycle, "ASGI callable returned without completing response.")
        finally:
            if self._tended is cycle:
                self._tended = None
            if cycle.response_complete:  # the next request may be long in coming
                cycle.on_response, cycle.body = _nothing, _NO_BODY
                self._let_go(cycle)
            if isinstance(cycle.transport, OneWrite):
                cycle.transport.let_go()

    async def _break_off(
        self, cycle: RequestResponseCycle, why: str, error: BaseException | None = None
    ) -> None:
        self.logger.error(why, exc_info=error)
        if cycle.response_started or isinstance(error, asyncio.CancelledError):
            # Cancelled is who has not answered when the drain time ends: nothing is known that could be told, and a cut is repeated.
            cycle.transport.close()
        else:
            await cycle.send_500_response()

    def _let_go(self, cycle: RequestResponseCycle) -> None:
        """Nobody reads any more what the request said: only its method is kept, by which uvicorn knows how to send."""
        left: Any = {"method": cycle.scope["method"]}
        cycle.scope = left
        if cycle is self.cycle and not self._in_head and not self._in_body:
            self.scope, self.headers, self.url = left, [], b""

    @override
    def on_response_complete(self) -> None:
        if self._last_answer is None or self.pipeline:
            super().on_response_complete()
        elif not self.transport.is_closing():
            self.transport.write(self._last_answer)
            self.transport.close()

    @override
    def pause_writing(self) -> None:
        super().pause_writing()
        self._look_at_body()
        if self.readers is not None:
            self.readers.fell_behind(self)

    @override
    def resume_writing(self) -> None:
        super().resume_writing()
        self._look_at_body()
        if self.readers is not None:
            self.readers.caught_up(self)

    def on_slow(self) -> None:
        """The client takes too little of what it is sent."""
        if self._on_slow is None:
            self.on_unread()
            cut(self.transport)
        else:
            self._on_slow()

    def take_over(self, one: Handed) -> Self:
        """Go on where a sibling left off, once there is a connection."""
        self._handed, self._hops = one.head, one.hops
        return self

    def _hand_over(self, sibling: int, hops: int) -> bool:
        """Let a sibling answer the request that is being answered, and have its connection: here it is closed, and its client sees nothing.

        False: it stays. There is a body, or more than this request has been read, or an answer before it is not sent yet, or the sibling
        takes no more for now.
        """
        newest = self._running is self.cycle and not (self._in_head or self._in_body or self._head_bytes)
        if not newest or self.last_call or self.transport.is_closing() or self.cycle.response_started:
            return False
        if any(name in _FRAMING for name, _ in self.headers) or self.transport.get_write_buffer_size():
            return False
        version = self.scope["http_version"].encode()
        fields = b"".join(b"%b: %b\r\n" % each for each in self.headers)
        head = b"%b %b HTTP/%b\r\n%b\r\n" % (self.scope["method"].encode(), self.url, version, fields)
        descriptor = self.transport.get_extra_info("socket").fileno()
        if not hand(self.inboxes[sibling], descriptor, head, hops):
            return False
        self.transport.abort()
        return True

    def _lend_body(self) -> DirectBody | None:
        self._body = DirectBody(self._running) if self._running is not None else None
        return self._body

    def _look_at_body(self) -> None:
        if self._body is not None:
            self._body.look()

    def _when_slow(self, on_slow: Callable[[], None] | None) -> None:
        self._on_slow = on_slow

    def _when_left(self, on_left: Callable[[], None] | None) -> bool:
        """False: a body is still to come, and the client is seen to leave only while it is read.

        Who has gone already is told at once: in a turn between, something else might wait for who never comes.
        """
        if self.reader.gone:
            if on_left is not None:
                on_left()
            return True
        own_body_comes = self._in_body and self._running is self.cycle
        self._on_left = None if own_body_comes else on_left
        if self._on_left is not None:
            self.flow.resume_reading()  # as `receive` does: what is not read from is not seen to leave
        return not own_body_comes

    def _afterwards(self, rest: _Rest) -> None:
        """Once the application has returned; or now, when what it had left to be done has returned as well."""
        self._goes_on = True
        if self._running is None or self._tended is self._running:
            self._rest = rest
        else:
            self._start_task(self._running, rest(self._running.receive, self._running.send))

    @override
    def on_body(self, body: bytes) -> None:
        self._head_bytes = 0
        self._body_due += len(body) / self.limits.body_bytes_per_second
        had = len(self.cycle.body)
        super().on_body(body)
        if self.pipeline and self.pipeline[0][0] is self.cycle:  # behind others, that is
            self.queues.body_bytes += len(self.cycle.body) - had
            if self._too_much_waits():
                self._too_many = True
                raise _TooManyWait

    @override
    def on_message_complete(self) -> None:
        self._in_body, self._head_bytes = False, 0
        super().on_message_complete()

    @override
    def send_400_response(self, msg: str) -> None:
        """Refuse what the parser could not read, or what was too large to go on reading, and close."""
        if self._too_large:
            refusal = problem(431, "headers_too_large", "The request's headers are too many or too large.")
        elif self._too_many:
            refusal = problem(400, "bad_request", "Too many requests wait for the answers before them.")
        else:
            refusal = problem(400, "bad_request", "This is no HTTP request that can be read.")
        answer = self._plain_answer(refusal)
        if self._is_behind_others():
            self._last_answer = answer
        else:
            self.transport.write(answer)
            self.transport.close()

    def announce_close(self) -> None:
        """The newest request's answer will say that it is the last, unless its headers are out already."""
        if self.cycle is not None and not self.cycle.response_started:  # pyright: ignore[reportUnnecessaryComparison] - None before the first request
            self.cycle.keep_alive = False

    @override
    def shutdown(self) -> None:
        """Close what rests. Not where a request lies unread or half read: it is answered, and then that is the end.

        Closing it would reset the connection, and its sender could not know whether it was acted on.
        """
        if self._stays_out():
            self._leave_doorstep()
            self._come_in()
        if not self._is_idle():
            super().shutdown()
        elif self._head_bytes == 0 and not _has_unread_bytes(self.transport):
            self.transport.close()

    def _is_behind_others(self) -> bool:
        """Whether requests before the one that cannot be read are still to be answered. It leaves the queue itself."""
        if self._in_body and self.pipeline:
            self.pipeline.popleft()
            return True
        return not self._in_body and not self._is_idle()

    def _plain_answer(self, refusal: Problem) -> bytes:
        origin = (
            next((value for name, value in self.headers if name == b"origin"), None) if self.headers else None
        )
        allowed = self.cors.headers_for(origin.decode("latin-1")) if self.cors and origin else {}
        headers = {**refusal.headers, **_LAST, **allowed}
        lines = [f"{name.lower()}: {value}\r\n".encode("latin-1") for name, value in headers.items()]
        return b"".join([STATUS_LINE[refusal.status], *lines, b"\r\n", refusal.body])

    def _is_idle(self) -> bool:
        return not self._in_body and self._is_answered()

    def _too_many_wait(self) -> bool:
        """Whether there is no place for another one behind those that are not answered yet."""
        waiting = len(self.pipeline)
        are_many = waiting >= FEW_PIPELINED and self.queues.length >= self.limits.pipelined_in_all
        is_full = waiting >= self.limits.pipelined or are_many
        return is_full and not self._is_answered()

    def _too_much_waits(self) -> bool:
        """Likewise for the bytes of bodies."""
        are_many = self.queues.body_bytes > self.limits.pipelined_bytes_in_all
        return are_many and cast("_Queue", self.pipeline).body_bytes() > FEW_PIPELINED_BYTES

    def _is_answered(self) -> bool:
        return self.cycle is None or self.cycle.response_complete  # pyright: ignore[reportUnnecessaryComparison] - None before the first request

    def _hides_a_body(self) -> bool:
        """The parser takes a request that offers an upgrade to have no body, and its body for the next request."""
        offers_upgrade = self.parser is not None and self.parser.should_upgrade()
        return offers_upgrade and any(name in _FRAMING for name, _ in self.headers)

    def _is_ambiguous(self) -> bool:
        """Another version than 1.0 and 1.1; not one `Host`, or one that can be none (RFC 9112 §3.2); a coding that is not
        undone (§6.1).
        """
        hosts = [value for name, value in self.headers if name == b"host"]
        codings = [value.strip().lower() for name, value in self.headers if name == b"transfer-encoding"]
        version = self.parser.get_http_version() if self.parser is not None else None
        if not all(map(_HOST.fullmatch, hosts)):
            return True
        if version == "1.0":
            return len(hosts) > 1 or bool(codings)
        return version != "1.1" or len(hosts) != 1 or codings not in ([], [b"chunked"])

    def _arm(self, seconds: float) -> None:
        self._disarm()
        self._timer = self.loop.call_later(seconds, self._give_up)

    def _disarm(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _give_up(self) -> None:
        self._timer = None
        now = self.loop.time()
        left = self._body_until - now
        if self._stays_out() and _has_unread_bytes(self.transport):
            self._arm(LET_IN_SECONDS)  # it has asked, and is let in in its turn
        elif self._in_body and self.flow.read_paused and left > 0:  # it is we who do not read
            self._body_due = max(self._body_due, now + self.limits.body_stall_seconds)
            self._arm(min(self.limits.body_stall_seconds, left))
        elif not self.transport.is_closing():
            self.transport.close()


def _nothing() -> None:
    pass


def _that_can_be_held(limits: HttpLimits) -> HttpLimits:
    """Fewer connections where the process may not have so many descriptors: it closes them then, and has some left for its own work."""
    descriptors, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if descriptors == resource.RLIM_INFINITY:
        return limits
    return replace(limits, connections=min(limits.connections, max(1, descriptors - OWN_DESCRIPTORS)))


@dataclass(slots=True)
class _Queues:
    """How many requests wait, of all connections, and the bytes of their bodies as far as they have come."""

    length: int = 0
    body_bytes: int = 0


class _Queue(list[Any]):
    """Of requests that wait for the one before: as a deque, without the 760 bytes of an empty one."""

    __slots__ = ("_all",)

    def __init__(self, all_of_them: _Queues) -> None:
        super().__init__()
        self._all = all_of_them

    def appendleft(self, waiting: Any) -> None:
        self.insert(0, waiting)
        self._all.length += 1

    @override
    def pop(self, index: SupportsIndex = -1) -> Any:
        waiting = super().pop(index)
        self._all.length -= 1
        self._all.body_bytes -= len(waiting[0].body)
        return waiting

    def popleft(self) -> Any:
        return self.pop(0)

    def body_bytes(self) -> int:
        """Of all that wait, as far as they have come."""
        return sum([len(cycle.body) for cycle, _ in self])

    @override
    def clear(self) -> None:
        self._all.length -= len(self)
        self._all.body_bytes -= self.body_bytes()
        super().clear()


class _Flow(FlowControl):
    """uvicorn's, but a request that reads its body, or asks whether its client is there, lets no more be read behind it than is held anyway."""

    # Without the base's `__init__`, which makes another event.

    def __init__(self, transport: asyncio.Transport, queue: _Queue) -> None:
        self._transport = transport
        self.read_paused = self.write_paused = False
        self._is_writable_event = LeanEvent(is_set=True)  # nobody waits for it yet
        self._queue = queue

    @override
    def resume_reading(self) -> None:
        if not self._queue or self._queue.body_bytes() <= HIGH_WATER_LIMIT:
            super().resume_reading()


def _has_unread_bytes(transport: asyncio.Transport) -> bool:
    peer = transport.get_extra_info("socket")
    if peer is None or transport.is_closing():
        return False
    poll = select.poll()
    poll.register(peer.fileno(), select.POLLIN)
    return bool(poll.poll(0))


async def _go_on_with(one: Handed, make: Callable[[], GuardedProtocol]) -> None:
    try:
        await asyncio.get_running_loop().connect_accepted_socket(
            lambda: make().take_over(one), one.connection
        )
    except OSError:  # its client has gone
        one.connection.close()


class _Server(uvicorn.Server):
    @override
    @contextlib.contextmanager
    def capture_signals(self) -> Generator[None]:
        """The process owns its signals (`runtime/process.py`)."""
        yield


class HttpServer:
    """Serves an ASGI application on one port until it is told to stop."""

    def __init__(
        self,
        app: Any,
        host: str,
        port: int,
        limits: HttpLimits | None = None,
        cors: Cors | None = None,
        on_refused: Callable[[], None] = lambda: None,
        on_unread: Callable[[], None] = lambda: None,
        sibling: Sibling | None = None,
        has_room: Callable[[], bool] = lambda: True,
    ) -> None:
        """`on_refused` is called for every connection that was one too many, `on_unread` for one whose answer is not read.

        Who is a `sibling` shares the port with others: its parent has taken it. What they hand to it while it has no room,
        beside the limit of connections, it lets another one have.
        """
        self._host, self._port, self._cors, self._sibling = host, port, cors, sibling
        self._on_refused, self._on_unread, self._has_room = on_refused, on_unread, has_room
        self._app, self._limits = app, _that_can_be_held(limits or HttpLimits())
        self._readers = SlowReaders(self._connections, self._limits.unread_seconds, self._limits.unread_bytes)
        self._server: _Server | None = None
        self._taking: set[asyncio.Task[None]] = set()
        self.bound_port: int | None = None
        """The port it listens on: the one asked for, or the one that the system chose for 0."""

    @property
    def unread_bytes(self) -> int:
        """What waits for clients that are behind."""
        return self._readers.held_bytes

    def bind(self) -> socket.socket:
        """Take the port and listen. Done before anything else starts, so that a taken one is told at once.

        Raises:
            PortTaken: another program has it.
        """
        listener = self._sibling.take_port() if self._sibling else take_port(self._host, self._port)
        self.bound_port = listener.getsockname()[1]
        return listener

    async def serve(
        self,
        listener: socket.socket,
        stopping: asyncio.Event,
        drain_seconds: float,
        last_call_seconds: float = 0.0,
    ) -> None:
        """Serve until `stopping` is set; then let open requests end, and cut them after `drain_seconds`.

        For the first `last_call_seconds` of these the port stays open: for as long as a balancer, which asks for
        readiness, may go on sending.
        """
        last_call_seconds = min(last_call_seconds, drain_seconds)
        doorstep = Doorstep(FIRST_AT_ONCE)
        own = {
            "limits": self._limits,
            "cors": self._cors,
            "readers": self._readers,
            "queues": _Queues(),
            "doorstep": doorstep,
            "context": copy_context(),
            "on_refused": staticmethod(self._on_refused),
            "on_unread": staticmethod(self._on_unread),
            "inboxes": self._sibling.take_inboxes() if self._sibling else (),
        }
        protocol = type("_Protocol", (GuardedProtocol,), own)
        config = uvicorn.Config(
            self._app, http=protocol, ws="none", lifespan="off", log_config=None, access_log=False, backlog=BACKLOG,
            timeout_keep_alive=KEEP_ALIVE_SECONDS, server_header=False, date_header=False, headers=[_NOSNIFF], proxy_headers=False,
            timeout_graceful_shutdown=max(1, int(drain_seconds - last_call_seconds)),
        )  # fmt: skip
        self._server = _Server(config)
        serving = asyncio.create_task(self._server.serve([listener]))
        inbox = self._sibling.take_inbox() if self._sibling else None
        if self._sibling is not None and inbox is not None:
            loop, state = asyncio.get_running_loop(), self._server.server_state
            config.load()
            state.default_headers = config.encoded_headers  # it sets them itself, a little later
            make = partial(protocol, config=config, server_state=state, app_state={}, _loop=loop)
            loop.add_reader(inbox, self._take_over, inbox, self._sibling, protocol, make)
        stop, looking = asyncio.create_task(stopping.wait()), asyncio.create_task(self._readers.run())
        try:
            await asyncio.wait({serving, stop}, return_when=asyncio.FIRST_COMPLETED)
            protocol.last_call = True
            for connection in self._connections():
                connection.announce_close()
            await asyncio.wait({serving}, timeout=last_call_seconds)
            self._server.should_exit = True
            await serving
        finally:
            stop.cancel()
            looking.cancel()
            if self._sibling is not None and inbox is not None:
                self._sibling.tell_leaving()  # what is handed to it from now on, its parent passes on
                asyncio.get_running_loop().remove_reader(inbox)
                inbox.close()
            if self._taking:
                await asyncio.wait(self._taking)
            self._server.force_exit = True
            serving.cancel()
            self._close_port()
            self.abort_all()
            doorstep.close()
            for other in protocol.inboxes:
                other.close()

    def _take_over(
        self,
        inbox: socket.socket,
        sibling: Sibling,
        protocol: type[GuardedProtocol],
        make: Callable[[], GuardedProtocol],
    ) -> None:
        """What siblings have handed over. Where there is no room, or the end is near, it goes to the next, until all have had it."""
        connections = self._server.server_state.connections if self._server else ()
        others = round_from(sibling.index + 1, protocol.inboxes)[:-1]
        for one in islice(handed(inbox), AT_ONCE):
            held = len(connections) + len(self._taking)
            welcome = held < self._limits.connections and self._has_room() and not protocol.last_call
            if (
                welcome
                or one.hops >= max(LAST_HOP, min(sibling.count, MOST_HOPS))
                or not hand_on(one, others)
            ):
                task = asyncio.create_task(_go_on_with(one, make))
                self._taking.add(task)
                task.add_done_callback(self._taking.discard)

    def _close_port(self) -> None:
        """Whoever cancels the server finds it shut, too: uvicorn alone would go on accepting."""
        for server in getattr(self._server, "servers", ()):
            server.close()

    def abort_all(self) -> None:
        """Cut every connection that is still open, whoever does not read."""
        for connection in self._connections():
            connection.transport.abort()

    def _connections(self) -> list[GuardedProtocol]:
        held = self._server.server_state.connections if self._server else ()
        return [connection for connection in held if isinstance(connection, GuardedProtocol)]
