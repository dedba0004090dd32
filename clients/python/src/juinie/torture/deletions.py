"""Runs that are deleted as soon as they have ended, while they are watched; and whether they stay away."""

from juinie.errors import NoAnswer, NotFound, Refused
from juinie.torture.findings import Kind
from juinie.torture.scene import Scene

_GIVE_UP = 0.2
"""Of all DELETEs but the first, so many are abandoned while they are in flight: the run may be there, or not."""
_GIVE_UP_SECONDS = 0.01
_READS = ("", "/events", "/wait?timeout_seconds=0")
_LOOK_AGAIN = 30


async def delete(scene: Scene, run_id: str) -> None:
    """One that has ended. Where no answer came, nobody knows; none is abandoned before one was answered, be the torture ever so short."""
    checker = scene.checker
    give_up = scene.figures.deleted > 0 and scene.chance.random() < _GIVE_UP
    checker.delete(run_id)
    try:
        await scene.client.api.send(
            "DELETE", f"/v1/runs/{run_id}",
            retry_seconds=0 if give_up else scene.load.patience_seconds,
            timeout_seconds=_GIVE_UP_SECONDS if give_up else None,
        )  # fmt: skip
    except NoAnswer:
        scene.figures.deletes_unanswered += 1
        return
    except NotFound as refusal:  # which is what a try after one that was done is told
        if not refusal.after_no_answer:
            scene.figures.wrong_answers[f"delete: {refusal.status} {refusal.code}"] += 1
    scene.figures.deleted += 1
    checker.gone(run_id, scene.now())


async def look_for(scene: Scene, run_id: str) -> None:
    """Ask each address of the API for a run that may be gone. What was gone before is not there."""
    for read in _READS * len(scene.client.api.urls):
        asked_at = scene.now()
        try:
            await scene.client.api.send("GET", f"/v1/runs/{run_id}{read}")
        except NotFound:
            scene.checker.gone(run_id, scene.now())
        else:
            scene.checker.serve(run_id, f"GET {read.partition('?')[0]}", asked_at, scene.now())


async def look_for_some_again(scene: Scene) -> None:
    """Of the runs that were deleted, some: none has come back."""
    for run in scene.chance.sample(list(scene.deleted), min(_LOOK_AGAIN, len(scene.deleted))):
        try:
            await scene.client.get_run(run.run_id)
        except NotFound:
            continue
        except Refused as refusal:
            scene.figures.wrong_answers[f"looked for again: {refusal.status} {refusal.code}"] += 1
            continue
        except NoAnswer as error:  # nor will there be one to the others: each would take as long
            scene.figures.wrong_answers[f"looked for again: {error}"] += 1
            return
        scene.checker.findings.add(Kind.DELETED, run.run_id, "read again", 0, "is there again")
