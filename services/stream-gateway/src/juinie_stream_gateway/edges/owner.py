"""Among several processes: a run's watchers go to the one that reads its partition, so that no partition is read by all of them.

A partition belongs to the process whose index it has, counted round. A run with very many watchers is spread over all, and the others take
by turns what an owner has no room for. Where there are fewer partitions than processes, all stays where it comes, as does what cannot be
handed over; that costs more and changes nothing.
"""

import time
from collections import Counter
from collections.abc import Callable
from typing import Any

from juinie_shared.domain.ids import RunId, parse_run_id
from juinie_shared.runtime.hand_over import LAST_HOP

SPREAD_FROM = 1_000
"""Watchers of one run that a process has before it shares them with its siblings: some 10 ms for each event of the run."""

COUNTED_SECONDS = 10.0


class Owner:
    """`place_of` gives a run's partition and how many there are, None while Kafka is away; `watchers` how many the run has here.

    `has_room`: whether another stream could be served here at all.
    """

    def __init__(
        self,
        index: int,
        count: int,
        place_of: Callable[[RunId], tuple[int, int] | None],
        watchers: Callable[[RunId], int],
        handed_over: Callable[[], None],
        has_room: Callable[[], bool],
    ) -> None:
        self._index, self._count = index, count
        self._place_of, self._watchers, self._handed_over, self._has_room = (
            place_of,
            watchers,
            handed_over,
            has_room,
        )
        self._turn = index
        self._came = Counter[RunId]()
        self._counted_until = 0.0

    def of(self, run_text: str, hops: int) -> int:
        """Which sibling should serve a request for this run's stream that was handed over so often."""
        run_id = parse_run_id(run_text)
        place = self._place_of(run_id) if run_id is not None and hops < LAST_HOP else None
        if run_id is None or place is None:
            return self._index
        partition, partitions = place
        if partitions < self._count:
            return self._index
        owner = partition % self._count
        if owner != self._index:
            return self._index if hops else owner
        if self._has_many(run_id):
            return self._next()
        return self._index if self._has_room() else self._next_but_me()

    def _next(self) -> int:
        self._turn = (self._turn + 1) % self._count
        return self._turn

    def _next_but_me(self) -> int:
        following = self._next()
        return self._next() if following == self._index else following

    def _has_many(self, run_id: RunId) -> bool:
        """Those who came a moment ago count as well: in a storm most of them are still to be let in."""
        now = time.monotonic()
        if now >= self._counted_until:
            self._came.clear()
            self._counted_until = now + COUNTED_SECONDS
        self._came[run_id] += 1
        return max(self._watchers(run_id), self._came[run_id] - 1) >= SPREAD_FROM

    async def takes(self, scope: Any, receive: Any, run_text: str) -> bool:
        """Whether a sibling goes on with the request: then its connection is gone from here."""
        connection = scope.get("extensions", {}).get("juinie.transport", {})
        hand_over, hops = connection.get("hand_over"), connection.get("hops", 0)
        if hand_over is None:
            return False
        owner = self.of(run_text, hops)
        if owner == self._index or not hand_over(owner, hops + 1):
            return False
        self._handed_over()
        while (await receive())["type"] != "http.disconnect":
            pass
        return True
