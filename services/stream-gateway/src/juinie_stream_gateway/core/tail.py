"""The tail check: one query holds all open streams against Postgres, so that no event is later than two seconds.

It finds what no gap in the records reveals: the lost last event, a run that finished or was deleted, a database that
was set back. Runs that Kafka is behind on are asked about more often, and all of them while it is behind on any, or away:
that it is gone shows on the first run seconds before its client says so. So nothing here needs to know whether it is the
broker or the publisher that fails.
"""

import asyncio
from collections.abc import Awaitable, Callable, Collection, Mapping
from itertools import count

from juinie_shared.domain.ids import RunId
from juinie_shared.runtime.pace import a_few_a_turn
from juinie_shared.runtime.tries import Tries
from juinie_stream_gateway.core.backfill import INTERNAL
from juinie_stream_gateway.core.hub import Hub, Room
from juinie_stream_gateway.store import RunRow

AT_ONCE = 500
"""Runs that are held against their rows in one turn of the loop: some 2 ms."""

type ReadRuns = Callable[[Collection[RunId]], Awaitable[Mapping[RunId, RunRow | None]]]


class TailCheck:
    """Asks about the runs that are due: all of them every `every_seconds`, suspects every `poll_seconds`."""

    def __init__(
        self, hub: Hub, read_runs: ReadRuns, every_seconds: float, poll_seconds: float, at_once: int = AT_ONCE
    ) -> None:
        self._hub = hub
        self._at_once = at_once
        self._read_runs = read_runs
        self._poll_seconds = poll_seconds
        self._polls_per_round = max(1, round(every_seconds / poll_seconds))
        self._doubtful = False

    async def run(self, tries: Tries) -> None:
        """For ever. A database that is away is asked again: open streams go on from Kafka meanwhile."""
        for poll in count(1):
            await asyncio.sleep(self._poll_seconds)
            if due := self.due(everyone=poll % self._polls_per_round == 0):
                with tries:
                    await self.check(due)

    def due(self, everyone: bool = True) -> list[Room]:
        """The rooms to ask about in this round."""
        everyone = everyone or self._doubtful or not self._hub.kafka_live
        return [room for room in self._hub.rooms() if everyone or room.splice.suspect]

    async def check(self, due: list[Room]) -> None:
        """One round."""
        known_before = [room.splice.known for room in due]
        rows = await self._read_runs([room.run_id for room in due])
        async for room, known in a_few_a_turn(zip(due, known_before, strict=True), self._at_once):
            row = rows.get(room.run_id)
            if row is None and room.run_id in rows:
                self._hub.close_room(room, INTERNAL)  # to another gateway, perhaps of the version that knows
            elif room.watchers:
                self._hub.take_row(room, row, known)
        self._doubtful = any(room.splice.behind and room.splice.owed for room in due)
