"""Runs that workers work on, from their creation to their end, whoever ends them: a worker, a cancel, or the sweeper."""

import asyncio
import time
import uuid
from typing import Any

from juinie.claims import Claim
from juinie.errors import NoAnswer, Refused
from juinie.torture.jobs import Job
from juinie.torture.polls import EndPoll
from juinie.torture.scene import Scene
from juinie.torture.watching import some_watchers, watched
from juinie.torture.worker import LEASE_SECONDS, work_on
from juinie.torture.writer import read_back

_ENDS_SECONDS = 40
"""The run's deadline: the sweeper ends it then, be there workers or not."""
_MOST_APPENDS = 12
_BORN_CLAIMED = 0.3
_CANCELLED = 0.15
_CANCEL_SECONDS = 3.0
_CREATOR = "creator"


async def make_work(scene: Scene) -> None:
    """One run after the other, until the scene is stopping."""
    while not scene.stopping.is_set():
        run_id = str(uuid.uuid4())  # not by the seed, which may come to the same deployment again
        scene.jobs[run_id] = Job(appends=scene.chance.randint(2, _MOST_APPENDS))
        try:
            await _one_run(scene, run_id)
        except (NoAnswer, Refused) as error:
            scene.figures.wrong_answers[f"worked run: {error}"] += 1
        finally:
            scene.jobs.pop(run_id, None)


async def _one_run(scene: Scene, run_id: str) -> None:
    began_at = time.time()
    born_claimed = scene.chance.random() < _BORN_CLAIMED
    claim = {"claim": {"worker_id": _CREATOR, "lease_seconds": LEASE_SECONDS}} if born_claimed else {}
    created = await scene.client.create_run(
        scene.work_agent, run_id=run_id, idempotency_key=run_id, timeout_seconds=_ENDS_SECONDS, **claim
    )
    watchers = [*some_watchers(scene, run_id), EndPoll(scene, run_id)]
    async with watched(watchers, _ENDS_SECONDS + scene.load.end_seconds):
        await asyncio.gather(_work_oneself(scene, created), _cancel(scene, run_id))
    await scene.jobs[run_id].until_quiet()
    await _see_the_end(scene, run_id)
    del scene.jobs[run_id]
    await read_back(scene, run_id)
    scene.conclude(run_id, began_at)


async def _work_oneself(scene: Scene, created: dict[str, Any]) -> None:
    """What was claimed at birth is worked on by whoever made it, if the answer says so."""
    lease = created.pop("lease", None)
    if lease:
        await work_on(scene, Claim(scene.client, created, lease["token"], lease["attempt"]), _CREATOR)


async def _cancel(scene: Scene, run_id: str) -> None:
    """Now and then."""
    if scene.chance.random() < _CANCELLED:
        await asyncio.sleep(scene.chance.uniform(0, _CANCEL_SECONDS))
        await scene.client.cancel(run_id)


async def _see_the_end(scene: Scene, run_id: str) -> None:
    """Where no worker was told of it."""
    run = await scene.client.get_run(run_id)
    if run["finished_at"] is None:
        return
    scene.checker.end_as(run_id, "GET", run["status"])
    if not scene.checker.finished(run_id):
        scene.checker.finish(run_id, run["last_seq"], scene.now())
