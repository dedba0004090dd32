"""Runs on which little happens for a minute, one at a time: tokens expire meanwhile, ids alone move cursors, and polls wait in vain."""

import asyncio
import itertools

from juinie.torture.polls import EndPoll, EventsPoll
from juinie.torture.scene import Scene
from juinie.torture.watching import allowed, watched, with_old_token, with_token, with_types
from juinie.torture.writer import Program, finish

_LASTS_SECONDS = 60.0
_LONGEST_PAUSE_SECONDS = 6.0


async def quiet_run(scene: Scene, run_id: str) -> None:
    """From its first event to its end."""
    watchers = [
        *allowed(scene, run_id, (with_types, with_token, with_old_token)),
        EndPoll(scene, run_id),
        EventsPoll(scene, run_id),
    ]
    program, until = Program(scene, run_id, "quiet", 0), scene.now() + _LASTS_SECONDS
    async with watched(watchers, scene.load.end_seconds):
        for number in itertools.count(1):
            if scene.stopping.is_set() or scene.now() > until:
                break
            await program.append(number, 1)
            await _pause(scene)
        await finish(scene, run_id)


async def _pause(scene: Scene) -> None:
    try:
        await asyncio.wait_for(scene.stopping.wait(), scene.chance.uniform(0, _LONGEST_PAUSE_SECONDS))
    except TimeoutError:
        return
