"""When what failed is tried again: soon at first, then at most every second. For ever: nothing here counts to an end."""

import time
from collections.abc import Callable, Collection, Iterable

from juinie_shared.domain.ids import RunId

FIRST_SECONDS = 0.05
MOST_SECONDS = 1.0
SECONDS_A_RUN = 50e-6
"""Where very many fail at once, each rests for as long as it takes to get past all of them."""
FORGET_SECONDS = 60.0
"""Several times as long as a partition that never answers keeps what is sent to it."""

type Clock = Callable[[], float]


def delay_seconds(failures: int) -> float:
    """How long to wait after so many failures in a row: doubling from 50 ms to 1 s."""
    return min(MOST_SECONDS, FIRST_SECONDS * 2 ** min(failures - 1, 10))


class RunBackoff:
    """Which runs rest, as a batch with rows of theirs failed. Each waits longer by its own failures; all others go on."""

    def __init__(self, clock: Clock = time.monotonic) -> None:
        self._clock = clock
        self._failed: dict[RunId, tuple[int, float]] = {}
        """How often, and not to be tried before."""

    @property
    def any_failed(self) -> bool:
        """Whether there is a run that has failed and has not gone well since."""
        return bool(self._failed)

    def resting(self) -> Collection[RunId]:
        """Those that wait now. Who was not tried again long after its wait is forgotten: somebody else has sent what it had, or nothing was sent at all."""
        now = self._clock()
        self._failed = {
            run_id: failed for run_id, failed in self._failed.items() if now < failed[1] + FORGET_SECONDS
        }
        return {run_id for run_id, (_, not_before) in self._failed.items() if now < not_before}

    def settle(self, went_well: Iterable[RunId], failed: Iterable[RunId]) -> None:
        """What became of the runs that were sent: none is both."""
        now = self._clock()
        for run_id in went_well:
            self._failed.pop(run_id, None)
        for run_id in failed:
            failures = self._failed.get(run_id, (0, 0.0))[0] + 1
            rest = max(delay_seconds(failures), SECONDS_A_RUN * len(self._failed))
            self._failed[run_id] = failures, now + rest
