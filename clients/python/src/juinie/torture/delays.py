"""How long events took, counted in steps: a percentile over millions costs as many numbers as there are steps."""

from collections import Counter
from dataclasses import dataclass, field

_STEPS_A_SECOND = 50


@dataclass
class Delays:
    """Seconds from the ack of an event to an open watcher."""

    longest: float = 0.0
    _steps: Counter[int] = field(default_factory=Counter[int])

    def add(self, seconds: float) -> None:
        """One event at one watcher took so long."""
        self.longest = max(self.longest, seconds)
        self._steps[int(seconds * _STEPS_A_SECOND)] += 1

    def within(self, share: float) -> float:
        """So many seconds were enough for this share of all, to a fiftieth of a second; 0 where there were none."""
        left = share * self._steps.total()
        for step in sorted(self._steps):
            left -= self._steps[step]
            if left <= 0:
                return min(self.longest, (step + 1) / _STEPS_A_SECOND)
        return 0.0
