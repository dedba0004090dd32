"""What tenants keep no longer goes, a little at a time: the events of finished runs, then the runs.

Every batch is short, and is followed by a rest several times as long as it took: so removal takes at most its share of
the database, however much there is to remove and however slow the database is. One publisher has the duty at a time.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from datetime import timedelta
from typing import Protocol

from juinie_publisher.core.duties import HasDuty
from juinie_publisher.core.pause import pause
from juinie_publisher.store.kept_runs import Kept, Removed
from juinie_publisher.telemetry import Telemetry
from juinie_shared.domain.errors import DatabaseAway, Transient
from juinie_shared.domain.ids import TenantId

EVENTS = 1000
RUNS = 100
"""A batch: events removed, runs buried."""
REST = 4
"""After a batch we rest so many times as long as it took."""
EVERY_SECONDS = 5.0
"""How often we look for something to remove when there was nothing."""


class KeptRuns(Protocol):
    """See `store.kept_runs.KeptRunStore`."""

    async def tenants(self) -> Sequence[Kept]: ...
    async def remove_events(self, tenant_id: TenantId, after: timedelta, batch: int) -> Removed: ...
    async def bury_runs(self, tenant_id: TenantId, after: timedelta, batch: int) -> int: ...


class Retention:
    """Removes until told to stop. Tenants take turns, a batch each, so that none waits for another's long queue."""

    def __init__(
        self,
        runs: KeptRuns,
        has_duty: HasDuty,
        telemetry: Telemetry,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._runs = runs
        self._has_duty = has_duty
        self._telemetry = telemetry
        self._clock = clock

    async def run(self, stopping: asyncio.Event) -> None:
        while not stopping.is_set():
            more = False
            try:
                if self._has_duty():
                    more = await self.round(stopping)
            except Transient as error:
                self._telemetry.failed("retention", error)
            if not more:
                await pause(stopping, EVERY_SECONDS)

    async def round(self, stopping: asyncio.Event) -> bool:
        """A batch for each tenant. Gives whether any of them was full, so that there may be more."""
        more = False
        for kept in await self._runs.tenants():
            for batch in (self._bury, self._remove_events):
                if stopping.is_set() or not self._has_duty():
                    return False
                began = self._clock()
                more = await self._try(batch, kept) or more
                await pause(stopping, REST * (self._clock() - began))
        return more

    async def _try(self, batch: Callable[[Kept], Awaitable[bool]], kept: Kept) -> bool:
        """One tenant's batch. What is wrong with it, or takes too long, is told, and holds up no other tenant."""
        try:
            return await batch(kept)
        except DatabaseAway:
            raise
        except Exception as error:  # noqa: BLE001 - told, and tried again in its turn
            self._telemetry.not_removed(kept.tenant_id, error)
            return False

    async def _bury(self, kept: Kept) -> bool:
        if kept.runs_after is None:
            return False
        runs = await self._runs.bury_runs(kept.tenant_id, kept.runs_after, RUNS)
        self._telemetry.runs_buried(kept.tenant_id, runs)
        return runs == RUNS

    async def _remove_events(self, kept: Kept) -> bool:
        if kept.events_after is None:
            return False
        removed = await self._runs.remove_events(kept.tenant_id, kept.events_after, EVENTS)
        self._telemetry.events_removed(kept.tenant_id, removed.events, removed.runs)
        return removed.events == EVENTS
