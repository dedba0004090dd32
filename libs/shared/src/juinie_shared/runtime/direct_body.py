"""The body of an answer, written past ASGI: a part is on its way when `write` returns, and no task has to be woken for it.

Only parts: the head comes before them and the end after them through `send`, which goes on where this left off.
"""

from collections.abc import Callable

from uvicorn.protocols.http.httptools_impl import RequestResponseCycle


def chunk(data: bytes) -> bytes:
    """A part of a body, not empty, as it goes over the wire (RFC 9112 §7.1): the bytes that `send` writes of it (uvicorn)."""
    return b"%x\r\n%b\r\n" % (len(data), data)


class DirectBody:
    """One answer's. `write` takes a `chunk`; it is None while it must not: before the head is out, when the client is behind or
    gone, and while its owner holds it.
    """

    __slots__ = ("_cycle", "_held", "write")

    def __init__(self, cycle: RequestResponseCycle) -> None:
        self._cycle = cycle
        self._held = False
        self.write: Callable[[bytes], object] | None = None
        self.look()

    @property
    def behind(self) -> bool:
        """The client has not taken enough of what was written before."""
        return self._cycle.flow.write_paused

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
        self.write = cycle.transport.write if cycle.chunked_encoding and not shut else None
