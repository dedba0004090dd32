"""Every run ends: whoever left it, it is found when it is due, and brought on by a run event that all learn from.

Any number of sweepers do no harm: each takes only rows that nobody has, and judges them under their locks. One has the
duty at a time, so that the others do not look for nothing. A run that cannot be swept is told loudly, put off, and
holds up no other.
"""

import asyncio
from collections import Counter
from collections.abc import Sequence
from typing import Protocol

from juinie_publisher.core.duties import HasDuty
from juinie_publisher.core.judge import Rules, judge
from juinie_publisher.core.pause import pause
from juinie_publisher.store.due_runs import Decide, Decision, DueRun
from juinie_publisher.telemetry import Telemetry
from juinie_shared.domain.errors import Transient
from juinie_shared.domain.ids import RunId

BATCH = 100
PUT_OFF_SECONDS = 60.0
"""How long a run that cannot be swept is left alone."""
OVERDUE_SECONDS = 5.0
"""From then on a run that is due counts as overdue: two sweeps should have found it."""


class DueRuns(Protocol):
    """See `store.due_runs.DueRunStore`."""

    async def sweep(self, batch: int, decide: Decide) -> int: ...
    async def sweep_one(self, run_id: RunId, decide: Decide) -> int: ...
    async def find_due(self, limit: int) -> list[RunId]: ...
    async def put_off(self, run_id: RunId, seconds: float) -> None: ...
    async def count_overdue(self, seconds: float) -> int: ...


class Sweeper:
    """Looks for due runs every `every_seconds`, and again at once while a batch was full."""

    def __init__(
        self, runs: DueRuns, rules: Rules, has_duty: HasDuty, telemetry: Telemetry, every_seconds: float
    ) -> None:
        self._runs = runs
        self._rules = rules
        self._has_duty = has_duty
        self._telemetry = telemetry
        self._every_seconds = every_seconds

    async def run(self, stopping: asyncio.Event) -> None:
        """Sweep until `stopping` is set. The batch in flight is finished first."""
        while not stopping.is_set():
            full = False
            try:
                full = self._has_duty() and await self.round()
            except Transient as error:
                self._telemetry.failed("sweep", error)
            if not full:
                await pause(stopping, self._every_seconds)

    async def round(self) -> bool:
        """Sweep one batch. Gives whether it was full, so that more may be due."""
        verdicts = Counter[str]()
        try:
            taken = await self._runs.sweep(BATCH, self._decider(verdicts))
        except Transient:
            raise
        except Exception as error:  # noqa: BLE001 - whatever one of them has, the others must not wait for its cure
            self._telemetry.failed("sweep", error)
            return await self._one_by_one()
        self._telemetry.swept(verdicts)
        return taken == BATCH

    async def _one_by_one(self) -> bool:
        """The runs of a batch that failed, each in a transaction of its own."""
        due = await self._runs.find_due(BATCH)
        for run_id in due:
            await self._alone(run_id)
        return len(due) == BATCH

    async def _alone(self, run_id: RunId) -> None:
        verdicts = Counter[str]()
        try:
            await self._runs.sweep_one(run_id, self._decider(verdicts))
        except Transient:
            raise
        except Exception as error:  # noqa: BLE001 - told, and put off
            self._telemetry.not_swept(run_id, error)
            await self._runs.put_off(run_id, PUT_OFF_SECONDS)
        else:
            self._telemetry.swept(verdicts)

    def _decider(self, verdicts: Counter[str]) -> Decide:
        """Judges a batch; notes its verdicts, which count once they are committed."""

        def decide(runs: Sequence[DueRun]) -> Decision:
            judged = [judge(run, self._rules) for run in runs]
            verdicts.update(verdict.value for verdict, _ in judged)
            changes = [change for _, change in judged]
            tells = sum(change.event is not None for change in changes)
            return Decision(changes, self._telemetry.sweep_span(tells) if tells else None)

        return decide


async def watch_overdue(
    runs: DueRuns, telemetry: Telemetry, stopping: asyncio.Event, every_seconds: float
) -> None:
    """Tell how many runs nobody has swept in time, until `stopping` is set. Apart from the sweeper, which may hang."""
    while not stopping.is_set():
        try:
            telemetry.overdue(await runs.count_overdue(OVERDUE_SECONDS))
        except Transient as error:
            telemetry.failed("overdue", error)
        await pause(stopping, every_seconds)
