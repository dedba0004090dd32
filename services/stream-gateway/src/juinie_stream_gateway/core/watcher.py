"""One watcher: where it stands in its run, and which frames it gets next.

`position` is the last seq that the watcher's stream has dealt with, `shown` the last one whose id the client has;
they differ where `types` leaves events out. The position only grows (but for a reset), so no event goes out twice.
"""

from collections.abc import Callable, Sequence
from typing import Protocol

from juinie_shared.contracts import sse
from juinie_shared.domain.events import RUN_FINISHED
from juinie_shared.domain.ids import Seq
from juinie_stream_gateway.core.start import Start
from juinie_stream_gateway.store import Event, RunRow

RETRY_MS = 2000
"""How long a client waits before it reconnects, unless told otherwise."""

type Types = frozenset[str] | None
"""The event types that a watcher asked for; None = all. `run.finished` always comes."""


class Line(Protocol):
    """The wire itself."""

    write: Callable[[bytes], object] | None
    """Takes frames at once, packed as the wire has them, and counts them nowhere. None: it is the outlet's `write` that does."""


class Outlet(Protocol):
    """Where a watcher's bytes go. `write` takes whole frames and never waits; what is unsent is kept, and bounded."""

    @property
    def line(self) -> Line: ...
    @property
    def full(self) -> bool:
        """Too much is unsent: write no more live events until it is flushed."""
        ...

    @property
    def idle(self) -> bool:
        """All that was written is on its way, and more is taken."""
        ...

    @property
    def written_bytes(self) -> int:
        """All that was ever written, sent or not, but for what went to the line past us."""
        ...

    @property
    def closing(self) -> str | None:
        """Why it takes no more, or None."""
        ...

    def write(self, data: bytes) -> None: ...
    def write_each(self, frames: Sequence[bytes]) -> None:
        """As `write`, of frames that others are given as well: what is kept of them is kept once for all."""

    def finish(self) -> None:
        """The run has ended: what was written goes out, then the body ends cleanly."""

    def reconnect(self, reason: str) -> None:
        """Tell the client to come back, and cut the connection: never a clean end."""

    async def flush(self) -> None:
        """Wait until all that was written is on its way."""

    async def wait(self, seconds: float | None = None) -> None:
        """Wait until there is something to flush, or `wake`, or the outlet is closing."""

    def wake(self) -> None:
        """Whoever waits looks again where the watcher stands."""


def joined(events: Sequence[Event], types: Types) -> tuple[bytes, Seq | None]:
    """The frames of those events that `types` lets through, as one piece, and the last seq among them."""
    if types is None:
        last = events[-1]
        return last.frame if len(events) == 1 else b"".join([event.frame for event in events]), last.seq
    let_through = [event for event in events if passes(event.type, types)]
    return b"".join([event.frame for event in let_through]), let_through[-1].seq if let_through else None


def passes(event_type: str, types: Types) -> bool:
    return types is None or event_type in types or event_type == RUN_FINISHED


class Watcher:
    """A client's stream. `start` says where it begins; the first frames are written at once."""

    __slots__ = (
        "_beyond", "_silent_ticks", "_stored_until", "_written_at_tick", "caught_up", "first_position", "line", "live", "outlet",
        "position", "refills", "shown", "types",
    )  # fmt: skip

    def __init__(self, outlet: Outlet, start: Start, types: Types) -> None:
        self.outlet, self.line = outlet, outlet.line
        self.types = types
        self.first_position = self.position = self.shown = start.position
        self.live = False
        self.refills = 0
        self._stored_until = start.stored_until
        self.caught_up = False
        self._beyond = False
        self._silent_ticks = 0
        self._written_at_tick = 0, start.position
        outlet.write(sse.preamble(RETRY_MS))
        if start.reset:
            outlet.write(sse.control_frame(sse.RESET, {"last_seq": start.stored_until}))
        if start.tail:
            outlet.write(sse.cursor_frame(start.position))
        self.settle()

    @property
    def owed(self) -> Seq:
        """What was stored when the stream began: the client is told when it has all of that."""
        return self._stored_until

    def show(self, events: Sequence[Event], retained_from_seq: Seq) -> bool:
        """Write stored events, those that it had already left out. True when the position moved."""
        before = self.position
        if self.position + 1 < retained_from_seq:
            self.outlet.write(sse.control_frame(sse.GAP, {"retained_from_seq": retained_from_seq}))
            self.position = Seq(retained_from_seq - 1)
            self.settle()
        news = events
        if news and news[0].seq <= self.position:
            news = [event for event in events if event.seq > self.position]
        if news and news[0].seq == self.position + 1:
            self.advance(b"", news[-1].seq, self._write_each(news))
            self.move_cursor()
        return self.position != before

    def advance(self, frames: bytes, position: Seq, shown: Seq | None) -> None:
        """Write frames that lead from the present position to `position`."""
        if frames:
            self.outlet.write(frames)
        self.position = position
        self.shown = shown or self.shown
        if not self.caught_up:
            self.settle()

    def _write_each(self, events: Sequence[Event]) -> Seq | None:
        """Gives the last seq written."""
        let_through = events
        if self.types is not None:
            let_through = [event for event in events if passes(event.type, self.types)]
        self.outlet.write_each([event.frame for event in let_through])
        return let_through[-1].seq if let_through else None

    def settle(self) -> None:
        """Tell the client, once, that it has all that was stored when it came."""
        if not self.caught_up and self.position >= self._stored_until:
            self.caught_up = True
            self.move_cursor()
            self.outlet.write(sse.control_frame(sse.CAUGHT_UP, {"last_seq": self.position}))

    def move_cursor(self) -> None:
        """Move the client's cursor past what `types` left out."""
        if self.shown < self.position:
            self.outlet.write(sse.cursor_frame(self.position))
            self.shown = self.position

    def beat(self, heartbeat_ticks: int) -> None:
        """A tick of the clock for all. After so many without a byte: a comment, so that nobody takes us for dead."""
        written = self.outlet.written_bytes, self.shown
        quiet = written == self._written_at_tick
        self._silent_ticks = self._silent_ticks + 1 if quiet else 0
        if self._silent_ticks >= heartbeat_ticks:
            self.outlet.write(sse.HEARTBEAT)
            self._silent_ticks = 0
        self._written_at_tick = self.outlet.written_bytes, self.shown

    def is_beyond(self, row: RunRow) -> bool:
        """Whether the run is shorter than what this client has: the database was set back since it was let in.

        One page may be of a read that began before that; the next is not. So it takes two in a row to be sure.
        """
        beyond, self._beyond = self._beyond, row.last_seq < self.position
        return beyond and self._beyond

    def set_back(self, last_seq: Seq) -> None:
        """The run is shorter than what this client has seen: from the start, then."""
        self.outlet.write(sse.control_frame(sse.RESET, {"last_seq": last_seq}))
        self.position = self.shown = Seq(0)
        self.owe_at_most(last_seq)

    def owe_at_most(self, last_seq: Seq) -> None:
        """Of what was stored when the stream began, there is no more than this."""
        self._stored_until = min(self._stored_until, last_seq)
        self.settle()

    def end(self, final: RunRow) -> None:
        """The run has finished and all of it is written: no more was stored, whatever there was when the stream began."""
        self.owe_at_most(final.last_seq)
        self.move_cursor()
        self.outlet.write(
            sse.control_frame(sse.END, {"last_seq": final.last_seq, "status": str(final.status)})
        )
        self.outlet.finish()
