"""Load, faults and checker together, for so many seconds."""

import asyncio
import random
import time
from collections.abc import Awaitable, Callable, Sequence
from datetime import UTC, datetime

from juinie.torture.deletions import look_for_some_again
from juinie.torture.leave import leave_of
from juinie.torture.probe import Probe
from juinie.torture.quiet_runs import quiet_run
from juinie.torture.scene import Scene
from juinie.torture.schedule import WELL_AGAIN_SECONDS, Episode, Fault, Schedule
from juinie.torture.summary import Summary, summary
from juinie.torture.worked_runs import make_work
from juinie.torture.worker import work_for_ever
from juinie.torture.writer import busy_run, read_some_again, write_runs

_LOOK_EVERY_SECONDS = 1.0


async def torture(
    scene: Scene,
    faults: Sequence[Fault],
    seed: int,
    seconds: float,
    tell: Callable[[Episode], None],
    look_again: Callable[[], Awaitable[None]] | None = None,
) -> Summary:
    """Write and watch for `seconds`, or until `scene.stopping` is set, with one fault after the other; then let all runs end, and all of them be published.

    `look_again` is called when all has ended, to check what only the deployment's owner can look at.
    """
    began_at, began = datetime.now(UTC).isoformat(timespec="seconds"), time.monotonic()
    probe = Probe(scene.client)
    await probe.begin()
    scene.leave = await leave_of(scene.client, probe.run_id)
    take = scene.checker.take_delays
    # Of its own: what the load draws depends on time.
    order = random.Random(f"order of faults {seed}")  # noqa: S311 - chance, not secrecy
    known = [scene.answers.excused_by(fault) for fault in faults]
    schedule = Schedule(known, order, probe, take, scene.stopping, tell)
    async with asyncio.TaskGroup() as beside:
        looking = beside.create_task(_look(scene))
        stopping = beside.create_task(_stop_after(scene, seconds))
        async with asyncio.TaskGroup() as group:
            for _ in range(scene.load.runs_at_once):
                group.create_task(write_runs(scene, busy_run))
            for _ in range(scene.load.quiet_at_once):
                group.create_task(write_runs(scene, quiet_run))
            for number in range(scene.load.worked_at_once):
                group.create_task(make_work(scene))
                group.create_task(work_for_ever(scene, f"worker-{number}"))
            if faults:
                group.create_task(schedule.run())
        looking.cancel()
        stopping.cancel()
    await read_some_again(scene)
    await look_for_some_again(scene)
    if await probe.until_published(WELL_AGAIN_SECONDS) is None:
        what = f"not all that was written was published within {WELL_AGAIN_SECONDS:g} s of the end"
        scene.figures.wrong_answers[f"outbox: {what}"] += 1
    if look_again is not None:
        await look_again()
    kinds, seconds = [fault.name for fault in faults], time.monotonic() - began
    return summary(scene, schedule.episodes, seed, began_at, seconds, kinds, schedule.broken_off)


async def _look(scene: Scene) -> None:
    while True:
        await asyncio.sleep(_LOOK_EVERY_SECONDS)
        scene.checker.look_for_late(scene.now())


async def _stop_after(scene: Scene, seconds: float) -> None:
    await asyncio.sleep(seconds)
    scene.stopping.set()
