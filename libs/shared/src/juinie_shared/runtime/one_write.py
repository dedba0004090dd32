"""An answer whose length is known goes out in one write: its head waits for its body, which follows at once.

uvicorn writes a head when it comes, and a body when that comes: two system calls, and two packets, of which the first wakes the
client for nothing.
"""

from uvicorn.protocols.http.httptools_impl import RequestResponseCycle


class OneWrite:
    """What `cycle` takes for its transport until the first part of its answer is out. `let_go` when the answer is over."""

    __slots__ = ("_cycle", "_head", "_transport")

    def __init__(self, cycle: RequestResponseCycle) -> None:
        self._cycle, self._transport = cycle, cycle.transport
        self._head: bytes | None = None
        cycle.transport = self  # pyright: ignore[reportAttributeAccessIssue] - what it asks of one is here

    def write(self, data: bytes) -> None:
        """Keep a head whose body is to come, write all else."""
        cycle = self._cycle
        if self._head is not None:
            data = self._head + data
            self.let_go()
        elif cycle.chunked_encoding is False and cycle.scope["method"] != "HEAD":  # uvicorn has seen a length
            self._head = data
            return
        elif cycle.response_started:
            self.let_go()
        self._transport.write(data)

    def let_go(self) -> None:
        """Stand no longer between: what is written from now on goes past this."""
        self._cycle.transport = self._transport
        self._head = None

    def close(self) -> None:
        """Where a body does not come, its head goes alone."""
        if self._head is not None:
            self.write(b"")
        self._transport.close()

    def is_closing(self) -> bool:
        return self._transport.is_closing()
