"""What a checked history may be found guilty of."""

from collections import Counter
from dataclasses import dataclass, field
from enum import StrEnum

_KEPT = 1000


class Kind(StrEnum):
    """Each is one way of breaking a promise."""

    LOST = "lost"
    """An acknowledged event that a reader did not get, or a gap in what it got."""
    REPEATED = "repeated"
    """An event that a reader got twice, or that is stored twice."""
    REORDERED = "reordered"
    """An event that came after its successors."""
    CORRUPT = "corrupt"
    """Other bytes than were sent, other bytes to one reader than to another, or an event that nobody sent."""
    TORN = "torn"
    """A part of one append is there, and the rest is not, or is not beside it."""
    LATE = "late"
    """Acknowledged, and not at a watcher that was open all the while."""
    END_MISSING = "end missing"
    """The run has ended, and a watcher was not told, or was told without the run's last event."""
    END_TWICE = "end twice"
    AFTER_END = "event after end"
    TWO_HOLDERS = "two holders"
    """A run that was with two workers at a time."""
    WRONG_ATTEMPT = "wrong attempt"
    """An attempt that is not one more than the last, or that nobody has."""
    FENCED = "written after the lease was lost"
    WRONG_POSITION = "wrong position"
    """An id that is not the seq of its event: who comes back with it gets too much, or too little."""
    WRONG_STATUS = "wrong status"
    """Two that were told how the run ended were told different things."""
    STALE_READ = "stale read"
    """A read that shows less than was acknowledged before it began."""
    UNASKED = "not asked for"
    """An event of a type that the watcher left out."""
    TRESPASS = "not allowed"
    """A token that opened another run, or was good for longer than it said."""
    DELETED = "served after its deletion"


@dataclass(frozen=True, slots=True)
class Violation:
    """One finding: which run, who saw it, at which seq, and what it was."""

    kind: Kind
    run: str
    who: str
    seq: int
    what: str

    def __str__(self) -> str:
        return f"{self.kind}: run {self.run}, {self.who}, seq {self.seq}: {self.what}"


@dataclass
class Findings:
    """All violations counted, the first of them kept."""

    counts: Counter[Kind] = field(default_factory=Counter[Kind])
    kept: list[Violation] = field(default_factory=list[Violation])

    def add(self, kind: Kind, run: str, who: str, seq: int, what: str) -> None:
        self.counts[kind] += 1
        if len(self.kept) < _KEPT:
            self.kept.append(Violation(kind, run, who, seq, what))
