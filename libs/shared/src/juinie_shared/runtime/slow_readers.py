"""Clients that do not take what they are sent: how long, and how much, this process keeps it for them.

A client that is behind has to take `FLOOR_BYTES_PER_SECOND`, or all that waits for it, within a time; one that does not is cut,
as is one that is gone. What it has taken is what its machine has acknowledged, so neither buffers of ours nor of the
kernel pass for reading. Looked at a few times in that time, and never when something is sent.
"""

import asyncio
from collections.abc import Callable, Iterable
from itertools import batched
from typing import Protocol

from juinie_shared.runtime.tcp import cut, is_gone, taken_bytes, waiting_bytes

FLOOR_BYTES_PER_SECOND = 2000
"""On average over the time that a client has. A window of 64 KiB, which opens all at once, fits into 33 s of it."""
LOOKS = 16
"""So often is looked in the time that a client has: it is cut at most two looks later than that."""
_AT_ONCE = 100
"""Connections that are looked at in one turn, a third of a millisecond. The turns are spread over the time between two looks: ten
thousand looked at in a row would hold up everybody else at every look, be there a breath between them or not."""


class Reader:
    """One client: what it was found to have taken, and when."""

    __slots__ = ("_owed_until", "_since", "gone")

    def __init__(self) -> None:
        self.gone = False
        """Its connection is lost."""
        self._since: float | None = None
        self._owed_until = 0

    def has_all(self) -> None:
        """Nothing waits for it."""
        self._since = None

    def is_slow(self, taken: int, waiting: int, now: float, seconds: float) -> bool:
        """Whether it has taken too little for `seconds`. It has the whole time again after that. Counts are of bytes."""
        if self._since is None or taken >= self._owed_until:
            self._since, self._owed_until = now, taken + min(waiting, int(FLOOR_BYTES_PER_SECOND * seconds))
        elif now - self._since >= seconds:
            self._since = None
            return True
        return False


class Connection(Protocol):
    """What is looked at. `on_slow` is called for a client that has taken too little: it cuts, or has it cut."""

    transport: asyncio.Transport
    reader: Reader

    def on_slow(self) -> None: ...


class SlowReaders[C: Connection]:
    """Looks after the connections of one server. `seconds`: the time that a client has.

    `most_bytes`: what may wait in the transports of all clients that are behind. Whoever is behind for longest is cut above that.
    None: any number.
    """

    def __init__(
        self, connections: Callable[[], Iterable[C]], seconds: float, most_bytes: int | None
    ) -> None:
        self._connections, self._seconds, self._most_bytes = connections, seconds, most_bytes
        self._behind = dict[C, None]()

    async def run(self) -> None:
        """Look for ever."""
        while True:
            turns = list(batched(self._connections(), _AT_ONCE)) or [()]
            for connections in turns:
                for connection in connections:
                    self._look(connection)
                await asyncio.sleep(self._seconds / LOOKS / len(turns))

    def _look(self, connection: C) -> None:
        if connection.reader.gone:  # since the turns were shared out; its descriptor may be another's by now
            return
        transport, now = connection.transport, asyncio.get_running_loop().time()
        waiting = waiting_bytes(transport)
        if not waiting:
            connection.reader.has_all()
        elif is_gone(transport):
            cut(transport)
        elif connection.reader.is_slow(taken_bytes(transport), waiting, now, self._seconds):
            connection.on_slow()

    def fell_behind(self, connection: C) -> None:
        """Its transport keeps what the kernel does not take."""
        self._behind[connection] = None
        while self._most_bytes is not None and len(self._behind) > 1 and self.held_bytes > self._most_bytes:
            longest = next(iter(self._behind))
            del self._behind[longest]
            longest.on_slow()

    def caught_up(self, connection: C) -> None:
        """It has taken most of it, or is gone."""
        self._behind.pop(connection, None)

    @property
    def held_bytes(self) -> int:
        """What waits in the transports of those that are behind."""
        return sum(connection.transport.get_write_buffer_size() for connection in self._behind)
