"""Load, faults and checker together, for so many seconds."""

import asyncio
import random
import time
from collections.abc import Awaitable, Callable, Sequence
from datetime import UTC, datetime

from juinie.torture.dead_letters import DeadLetters
from juinie.torture.deletions import look_for_some_again
from juinie.torture.leave import leave_of
from juinie.torture.probe import Probe
from juinie.torture.quiet_runs import quiet_run
from juinie.torture.scene import Scene
from juinie.torture.schedule import WELL_AGAIN_SECONDS, Episode, Fault, Schedule
from juinie.torture.summary import Summary, summary
from juinie.torture.trouble import told_what_is_in_the_way
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

    What gets in the way once it has begun ends it, and is told with all that was found until then. `look_again` is called when all has ended, to check what only the deployment's owner can look at.
    """
    began_at, began = datetime.now(UTC).isoformat(timespec="seconds"), time.monotonic()
    probe, dead_letters = Probe(scene.client), DeadLetters(scene.client)
    await probe.begin()
    if probe.sees_outbox:
        await dead_letters.begin()
    scene.leave = await leave_of(scene.client, probe.run_id)
    scene.leave.left_out += probe.left_out
    # Of its own: what the load draws depends on time.
    order = random.Random(f"order of faults {seed}")  # noqa: S311 - chance, not secrecy
    known = [scene.answers.excused_by(fault) for fault in faults]
    schedule = Schedule(known, order, probe, scene.checker.take_delays, scene.stopping, tell)

    async def all_of_it() -> None:
        await _under_load(scene, schedule, seconds)
        await read_some_again(scene)
        await look_for_some_again(scene)
        await _until_published(scene, probe)
        if probe.sees_outbox:
            await _count(scene, dead_letters)
        if look_again is not None:
            await look_again()

    in_the_way = await told_what_is_in_the_way(all_of_it())
    kinds, took = [fault.name for fault in faults], time.monotonic() - began
    return summary(scene, schedule.episodes, seed, began_at, took, kinds, schedule.broken_off or in_the_way)


async def _under_load(scene: Scene, schedule: Schedule, seconds: float) -> None:
    """Until all runs have ended."""
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
            if schedule.faults:
                group.create_task(schedule.run())
        looking.cancel()
        stopping.cancel()


async def _until_published(scene: Scene, probe: Probe) -> None:
    if await probe.until_published(WELL_AGAIN_SECONDS) is None:
        what = f"not all that was written was published within {WELL_AGAIN_SECONDS:g} s of the end"
        scene.figures.wrong_answers[f"outbox: {what}"] += 1


async def _count(scene: Scene, dead_letters: DeadLetters) -> None:
    """Each is a finding: what the load writes can all be sent."""
    came = await dead_letters.since()
    scene.figures.dead_letters = len(came)
    if came:
        scene.figures.wrong_answers[f"dead letters, the last of them {came[0]}"] += len(came)


async def _look(scene: Scene) -> None:
    while True:
        await asyncio.sleep(_LOOK_EVERY_SECONDS)
        scene.checker.look_for_late(scene.now())


async def _stop_after(scene: Scene, seconds: float) -> None:
    await asyncio.sleep(seconds)
    scene.stopping.set()
