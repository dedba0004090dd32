"""What one reader has seen of one run: a watcher over all its connections, or somebody who reads the pages.

It keeps a position, and the seqs below it that are missing: nothing that grows with the run.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from juinie.torture.findings import Kind

_HOLES_KEPT = 10_000

type Finding = tuple[Kind, int, str]


@dataclass
class ReaderHistory:
    """`open_since` is when its connection was opened; None while it has none."""

    name: str
    position: int = 0
    open_since: float | None = None
    finished: bool = False
    """It saw the run's last event."""
    ended: bool = False
    ended_at: int = 0
    """What it was told of where the run ends."""
    turned_away: bool = False
    """It was told that there is no such run (any more): nobody owes it the end."""
    late_up_to: int = 0
    _came: bool = False
    _missing: set[int] = field(default_factory=set[int])

    def open(self, after_seq: int, at: float) -> Iterator[Finding]:
        """A connection after a position. The first one begins where it likes; each other where the reader was, says what it saw."""
        if self._came and after_seq != self.position:
            yield (
                Kind.WRONG_POSITION,
                after_seq,
                f"asks for what follows {after_seq}, and has {self.position}",
            )
        if not self._came:
            self._came, self.position = True, after_seq
        self.open_since = at

    def move(self, to: int | None) -> Iterator[Finding]:
        """An id, or the want of one where an event has just come: a client comes back with it."""
        if to != self.position:
            yield Kind.WRONG_POSITION, self.position, f"the id is {to}, the reader has {self.position}"

    def skip(self, to: int) -> Iterator[Finding]:
        """An id alone. Only who left out some types has anything to skip."""
        return self.move(to)

    def wants(self, name: str) -> bool:
        """It asked for events of this type."""
        del name
        return True

    def missed(self, types: Sequence[int]) -> Iterator[Finding]:
        """What it should have seen of these, the (hashed) type of each seq from 1 on. All is told already where there are no holes."""
        del types
        return iter(())

    def see(self, seq: int, last: bool) -> Iterator[Finding]:
        """An event arrived. `last`: it is the run's terminal event."""
        if self.ended or self.finished:
            yield Kind.AFTER_END, seq, "arrived after the end"
        elif seq <= self.position:
            yield from self._see_again(seq)
        else:
            yield from self._go_to(seq)
        self.finished = self.finished or last

    def drop(self) -> Iterator[Finding]:
        """The connection is gone. What was skipped on it never came."""
        self.open_since = None
        yield from self._lose()

    def end(self, last_seq: int) -> Iterator[Finding]:
        """`stream.end`, or 204, or the last page of a finished run."""
        if self.ended:
            yield Kind.END_TWICE, last_seq, "a second end"
        yield from self._lose()
        if self.position != last_seq:
            yield Kind.LOST, last_seq, f"the end says {last_seq}, the reader has {self.position}"
        if not self.finished:
            yield Kind.END_MISSING, last_seq, "an end without the terminal event"
        self.ended, self.ended_at = True, last_seq

    def late_for(self, acked_at: float, seq: int, now: float, limit_seconds: float) -> Iterator[Finding]:
        """An append up to `seq` was acknowledged at `acked_at`: is it overdue here?"""
        if self.open_since is None or seq <= max(self.position, self.late_up_to):
            return
        waited = now - max(acked_at, self.open_since)
        if waited > limit_seconds:
            self.late_up_to = seq
            yield Kind.LATE, seq, f"still missing after {waited:.1f} s; the reader has {self.position}"

    def _see_again(self, seq: int) -> Iterator[Finding]:
        if seq in self._missing:
            self._missing.discard(seq)
            yield Kind.REORDERED, seq, f"arrived after {self.position}"
        else:
            yield Kind.REPEATED, seq, f"arrived again at {self.position}"

    def _go_to(self, seq: int) -> Iterator[Finding]:
        holes = seq - self.position - 1
        if holes > _HOLES_KEPT:
            yield Kind.LOST, seq, f"{holes} events before it are missing"
        else:
            self._missing.update(range(self.position + 1, seq))
        self.position = seq

    def _lose(self) -> Iterator[Finding]:
        for seq in sorted(self._missing):
            yield Kind.LOST, seq, f"never came, though the reader got as far as {self.position}"
        self._missing.clear()
