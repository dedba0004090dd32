"""When what failed is tried again: soon at first, then at most every second. For ever: nothing here counts to an end."""

import time
from collections.abc import Callable, Collection, Iterable

FIRST_SECONDS = 0.05
MOST_SECONDS = 1.0

type Clock = Callable[[], float]


def delay_seconds(failures: int) -> float:
    """How long to wait after so many failures in a row: doubling from 50 ms to 1 s."""
    return min(MOST_SECONDS, FIRST_SECONDS * 2 ** min(failures - 1, 10))


class ShardBackoff:
    """Which shards may be fetched now. One that failed waits alone; the others go on."""

    def __init__(self, clock: Clock = time.monotonic) -> None:
        self._clock = clock
        self._failures: dict[int, int] = {}
        self._not_before: dict[int, float] = {}

    @property
    def any_failed(self) -> bool:
        """Whether there is a shard that has failed and has not gone well since."""
        return bool(self._failures)

    def due(self, shards: Iterable[int]) -> list[int]:
        """Those of these shards that do not wait."""
        now = self._clock()
        return [shard for shard in shards if self._not_before.get(shard, now) <= now]

    def settle(self, tried: Collection[int], failed: Collection[int]) -> None:
        """What became of the shards of one round."""
        now = self._clock()
        for shard in tried:
            if shard in failed:
                self._failures[shard] = self._failures.get(shard, 0) + 1
                self._not_before[shard] = now + delay_seconds(self._failures[shard])
            else:
                self._failures.pop(shard, None)
                self._not_before.pop(shard, None)
