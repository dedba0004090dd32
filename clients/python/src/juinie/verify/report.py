"""What was looked at, and what was found."""

from collections.abc import Iterable
from dataclasses import dataclass, field

_SHOWN = 5


@dataclass(frozen=True, slots=True)
class Check:
    """One thing that was looked at. `faults` is empty where all was well; `notes` say what is as it may be, and worth knowing."""

    place: str
    what: str
    faults: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def detail(self) -> str:
        """The first faults, or else the first notes, and how many more there are."""
        if self.notes and not self.faults:
            return f"ok, but note: {_first(self.notes)}"
        return _first(self.faults)


def _first(lines: tuple[str, ...]) -> str:
    more = len(lines) - _SHOWN
    return "; ".join([*lines[:_SHOWN], *([f"and {more} more"] if more > 0 else [])])


@dataclass
class Report:
    """All checks of one run."""

    checks: list[Check] = field(default_factory=list[Check])

    @property
    def whole(self) -> bool:
        return not any(check.faults for check in self.checks)

    def add(self, place: str, what: str, faults: Iterable[str]) -> None:
        self.checks.append(Check(place, what, tuple(faults)))
