"""Finish a run: its last events, `run.finished` and its status, in one append that ends it."""

from dataclasses import dataclass, replace
from typing import Any

from juinie_api.core.append import Append, Appender, Ending
from juinie_api.core.read import read_run
from juinie_api.core.run import Run
from juinie_shared.contracts.run_event_data import finished_data
from juinie_shared.db.pool import Pool
from juinie_shared.domain.errors import RunFinished
from juinie_shared.domain.events import RUN_FINISHED, NewEvent


@dataclass(frozen=True, slots=True)
class Finished:
    """The run as it is now. `new`: this request ended it. `replayed`: its Idempotency-Key was used before."""

    run: Run
    new: bool
    replayed: bool = False


async def finish(pool: Pool, appender: Appender, append: Append, ending: Ending) -> Finished:
    """End the run with `append`'s events and `run.finished`.

    A run that has ended just so already, and no events to add: the same run again, and nothing new.

    Raises:
        RunFinished: it has ended otherwise. And as `Appender.commit`.
    """
    try:
        appended = await appender.commit(with_ending(append, ending))
    except RunFinished:
        run = await read_run(pool, append.run_id, append.tenant_id)
        if append.events or _ending_of(run) != ending:
            raise
        return Finished(run, new=False)
    run = appended.run or await read_run(pool, append.run_id, append.tenant_id)
    return Finished(run, new=not appended.replayed, replayed=appended.replayed)


def with_ending(append: Append, ending: Ending) -> Append:
    """The same append, with `run.finished` as its last event."""
    last = NewEvent(RUN_FINISHED, finished_data(ending.status, ending.output, ending.error))
    changes: dict[str, Any] = {"events": [*append.events, last], "ending": ending}
    return replace(append, **changes)


def _ending_of(run: Run) -> Ending:
    return Ending(run.status, run.output, run.error)
