"""The body of an answer, written past ASGI: a part is on its way when `write` returns, and no task has to be woken for it.

Its head, too, where it is one of a stream. The end comes after them through `send`, which goes on where this left off.
"""

from collections.abc import Callable, Iterable

from uvicorn.protocols.http.httptools_impl import STATUS_LINE, RequestResponseCycle


def chunk(data: bytes) -> bytes:
    """A part of a body, not empty, as it goes over the wire (RFC 9112 §7.1): the bytes that `send` writes of it (uvicorn)."""
    return b"%x\r\n%b\r\n" % (len(data), data)


class DirectBody:
    """One answer's. `write` takes a `chunk`; it is None while it must not: before the head is out, when the client is behind or
    gone, and while its owner holds it.
    """

    __slots__ = ("_cycle", "_gathered", "_held", "write")

    def __init__(self, cycle: RequestResponseCycle) -> None:
        self._cycle = cycle
        self._held = False
        self._gathered: list[bytes] | None = None
        """The head, and what has been written since, until `go`."""
        self.write: Callable[[bytes], object] | None = None
        self.look()

    @property
    def behind(self) -> bool:
        """The client has not taken enough of what was written before."""
        return self._cycle.flow.write_paused

    def begin(self, headers: Iterable[tuple[bytes, bytes]]) -> bool:
        """The head of an answer of unknown length, with status 200: the bytes that `send` writes of it (uvicorn). What the headers
        have is not looked at. It goes out with what is written before `go`, which is to come soon: one packet instead of several.
        False: it cannot be written now.
        """
        cycle = self._cycle
        if cycle.response_started or cycle.flow.write_paused or cycle.disconnected:
            return False
        cycle.response_started, cycle.waiting_for_100_continue, cycle.chunked_encoding = True, False, True
        lines = [b"%b: %b\r\n" % header for header in (*cycle.default_headers, *headers)]
        if not cycle.keep_alive:
            lines.append(b"connection: close\r\n")
        self._gathered = [STATUS_LINE[200], *lines, b"transfer-encoding: chunked\r\n\r\n"]
        self.look()
        return True

    def go(self) -> None:
        """What was gathered is on its way."""
        if self._gathered is not None:
            gathered, self._gathered = b"".join(self._gathered), None
            if not self._cycle.disconnected:
                self._cycle.transport.write(gathered)
            self.look()

    def hold(self) -> None:
        """Until `release`, what is to be written waits elsewhere."""
        self._held, self.write = True, None

    def release(self) -> None:
        self._held = False
        self.look()

    def look(self) -> None:
        """Something has changed: see whether a part can be written now."""
        cycle = self._cycle
        shut = self._held or cycle.flow.write_paused or cycle.disconnected or cycle.response_complete
        if shut or not cycle.chunked_encoding:
            self.write = None
        else:
            self.write = cycle.transport.write if self._gathered is None else self._gathered.append
