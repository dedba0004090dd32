"""Whether a window is of the oldest rows, whosesoever they are, or has some of each shard.

The oldest are cheaper to find, and a run with a long backlog is through sooner; but then all others wait behind it, and
what cannot be sent is found first, again and again. So the shards have their turn when more waits than a window has room for,
and whenever something is held back.
"""

OLDEST_IN_A_ROW = 3
"""Full windows of the oldest, after which comes one of each shard: so long at most a row waits behind the backlog of another shard."""
AFTER_TROUBLE = 16
"""So many windows have some of each shard, as long as they are full, from the last one on for which something was held back."""


class Turns:
    """Whose turn it is, from window to window."""

    def __init__(self) -> None:
        self._turn = 0
        """Below 0: so many of each shard are to come. From there on: so many of the oldest have been."""

    def by_shard(self, troubled: bool) -> bool:
        """Whether the next window has some of each shard. `troubled`: some rows must or should not be sent now."""
        if troubled:
            self._turn = -AFTER_TROUBLE
        by_shard = not 0 <= self._turn < OLDEST_IN_A_ROW
        self._turn = 0 if self._turn == OLDEST_IN_A_ROW else self._turn + 1
        return by_shard

    def all_given(self) -> None:
        """The last window was not full: nobody waits."""
        self._turn = 0
