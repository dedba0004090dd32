"""What is on its way to each partition. A partition whose acknowledgement is late holds up only itself."""

import asyncio
from collections.abc import Collection, Coroutine, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from juinie_publisher.store.outbox import PendingRow
from juinie_shared.domain.ids import RunId


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of the rows of one partition: Kafka has them whole, or their batch failed. The rest was not tried."""

    acked: Sequence[PendingRow]
    failed: Sequence[PendingRow]


class Lanes:
    """One lane a partition. A lane that is taken takes nothing more, until its outcome has been fetched."""

    def __init__(self) -> None:
        self._taken: dict[int, asyncio.Task[Outcome]] = {}
        self._runs: dict[int, set[RunId]] = {}

    @property
    def taken(self) -> int:
        """How many."""
        return len(self._taken)

    @property
    def runs(self) -> Collection[RunId]:
        """The runs that a fetch must leave out: their older rows are on their way, or wait behind such."""
        return set[RunId]().union(*self._runs.values())

    def free(self, groups: Mapping[int, Sequence[PendingRow]]) -> Mapping[int, Sequence[PendingRow]]:
        """The rows whose lane is free. Of the others, the runs are noted: the next fetch leaves them out."""
        for partition in self._taken.keys() & groups.keys():
            self._runs[partition].update(row.run_id for row in groups[partition])
        return {partition: rows for partition, rows in groups.items() if partition not in self._taken}

    def take(
        self, partition: int, rows: Iterable[PendingRow], sending: Coroutine[Any, Any, Outcome]
    ) -> asyncio.Task[Outcome]:
        """Begin to send rows to a partition whose lane is free."""
        self._runs[partition] = {row.run_id for row in rows}
        self._taken[partition] = asyncio.create_task(sending)
        return self._taken[partition]

    def ended(self) -> Sequence[Outcome]:
        """The outcomes since the last call. Their lanes are free from now on."""
        done = [partition for partition, task in self._taken.items() if task.done()]
        for partition in done:
            del self._runs[partition]
        return [self._taken.pop(partition).result() for partition in done]

    async def all_ended(self) -> Sequence[Outcome]:
        """Wait for everything that is on its way."""
        if self._taken:
            await asyncio.wait(self._taken.values())
        return self.ended()

    async def abandon(self) -> None:
        """Let go of everything that is on its way: it will be sent again."""
        for task in self._taken.values():
            task.cancel()
        await asyncio.gather(*self._taken.values(), return_exceptions=True)
