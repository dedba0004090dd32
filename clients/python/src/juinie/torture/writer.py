"""Runs from their creation to their end: written by one or two programs at once, watched, some deleted, read back, concluded."""

import asyncio
import time
import uuid
from collections.abc import Awaitable, Callable
from contextlib import aclosing
from dataclasses import dataclass

from juinie.errors import NoAnswer, NotFound, Refused, RunFinished
from juinie.torture.deletions import delete, look_for
from juinie.torture.payloads import batch
from juinie.torture.scene import Scene
from juinie.torture.watcher import show
from juinie.torture.watching import a_poll, some_watchers, watched

_GIVE_UP = 0.02
"""Of all appends, so many are abandoned while they are in flight."""
_GIVE_UP_SECONDS = 0.05
_RACES = 0.3
"""Before the ends of so many of all runs, somebody writes on: each append is before the end, or refused."""
_RACER_EVENTS = 50
_READ_AGAIN = 100
_GONE = 410
_READS = 0.1
"""After so many of all appends, the run is read."""
_READ_SECONDS = 5.0
_DELETED_OF = 4
"""One of so many is deleted when it has ended."""

type Written = Callable[[Scene, str], Awaitable[None]]


async def write_runs(scene: Scene, written: Written) -> None:
    """One run after the other, each from its creation to its conclusion, until the scene is stopping. `written` is what happens in between."""
    while not scene.stopping.is_set():
        run_id = str(uuid.uuid4())  # not by the seed, which may come to the same deployment again
        try:
            await _one_run(scene, run_id, written)
        except (NoAnswer, Refused) as error:  # what it was about is counted: no run is dropped in silence
            scene.figures.wrong_answers[f"run: {error}"] += 1
        finally:
            scene.open_runs.discard(run_id)


async def _one_run(scene: Scene, run_id: str, written: Written) -> None:
    began_at = time.time()
    await scene.client.create_run("torture", run_id=run_id, idempotency_key=run_id)
    await written(scene, run_id)
    await read_back(scene, run_id)
    scene.conclude(run_id, began_at)


async def busy_run(scene: Scene, run_id: str) -> None:
    """From its first event to its end, and sometimes to its deletion, which does not wait until its watchers have the end."""
    to_be_deleted = scene.leave.deletes and next(scene.busy_runs) % _DELETED_OF == 0
    scene.open_runs.add(run_id)
    watchers = [*some_watchers(scene, run_id), a_poll(scene, run_id)]
    async with watched(watchers, scene.load.end_seconds):
        events = scene.chance.randint(scene.load.run_events // 10 + 1, scene.load.run_events)
        programs = scene.chance.choice((1, 1, 1, 2))
        async with asyncio.TaskGroup() as group:
            for number in range(programs):
                group.create_task(Program(scene, run_id, f"p{number}", events // programs).write())
        scene.open_runs.discard(run_id)
        async with asyncio.TaskGroup() as group:
            if scene.chance.random() < _RACES:
                group.create_task(Program(scene, run_id, "racer", _RACER_EVENTS, may_be_late=True).write())
            group.create_task(finish(scene, run_id))
        if to_be_deleted:
            await delete(scene, run_id)
    if to_be_deleted:
        await look_for(scene, run_id)


async def finish(scene: Scene, run_id: str) -> None:
    """The end, acknowledged."""
    body = b'{"status":"success","output":{"answer":42}}'
    headers = {"Idempotency-Key": "finish"}
    path = f"/v1/runs/{run_id}/finish"
    patience = scene.load.patience_seconds
    answer = await scene.client.api.send("POST", path, content=body, headers=headers, retry_seconds=patience)
    finished = answer.json()
    scene.checker.finish(run_id, finished["last_seq"], scene.now())
    scene.checker.end_as(run_id, "finish", finished["status"])


async def read_back(scene: Scene, run_id: str) -> None:
    """The pages, as one more reader."""
    checker, last_seq, asked_at = scene.checker, 0, scene.now()
    checker.open(run_id, "pages", 0, asked_at)
    try:
        async with aclosing(scene.client.pages(run_id)) as pages:
            async for page in pages:
                checker.serve(run_id, "pages", asked_at, scene.now())
                for event in page:
                    last_seq = event.seq
                    show(scene, run_id, "pages", event)
    except NotFound:
        if not checker.may_be_gone(run_id):
            raise
        checker.turn_away(run_id, "pages", scene.now())
    else:
        checker.end(run_id, "pages", last_seq)


async def read_some_again(scene: Scene) -> None:
    """Of the runs that were concluded, some: what was read then is there still."""
    for run in scene.chance.sample(list(scene.concluded), min(_READ_AGAIN, len(scene.concluded))):
        try:
            async with aclosing(scene.client.pages(run.run_id)) as pages:
                wholes = [event.raw async for page in pages for event in page]
        except Refused as refusal:
            if isinstance(refusal, NotFound) or refusal.status == _GONE:
                scene.checker.lose(run.run_id, "read again", f"read again, it is gone: {refusal}")
            else:
                scene.figures.wrong_answers[f"read again: {refusal.status} {refusal.code}"] += 1
        except NoAnswer as error:  # nor will there be one to the others: each would take as long
            scene.figures.wrong_answers[f"read again: {error}"] += 1
            return
        else:
            scene.checker.read_again(run.run_id, wholes)


@dataclass
class Program:
    """Appends so many events to a run; `events` are left to be sent."""

    scene: Scene
    run_id: str
    name: str
    events: int
    may_be_late: bool = False
    """The run may end meanwhile."""

    async def write(self) -> None:
        number = 0
        while self.events > 0 and not self.scene.stopping.is_set():
            size = min(self.events, self.scene.chance.randint(1, self.scene.load.batch))
            await self.scene.pace(size)
            self.events, number = self.events - size, number + 1
            await self.append(number, size)

    async def append(self, number: int, size: int) -> None:
        """One append; what became of it the checker is told."""
        scene, key = self.scene, f"{self.name}.{number}"
        body, contents = batch(scene.chance, self.name, number, size)
        scene.checker.send(self.run_id, key, contents)
        scene.figures.appends += 1
        try:
            first, last = await self._post(key, body)
        except Refused as refusal:
            scene.checker.refuse(self.run_id, key, refusal.after_no_answer)
            if self.may_be_late and isinstance(refusal, RunFinished):
                self.events = 0
                return
            scene.figures.wrong_answers[f"append: {refusal.status} {refusal.code}"] += 1
        except NoAnswer:
            pass  # stored once, or not at all: the checker finds out which
        else:
            scene.checker.acknowledge(self.run_id, key, first, last, scene.now())
            if scene.chance.random() < _READS:
                await self._read()

    async def _post(self, key: str, body: bytes) -> tuple[int, int]:
        give_up = self.scene.chance.random() < _GIVE_UP
        path, headers = f"/v1/runs/{self.run_id}/events", {"Idempotency-Key": key}
        try:
            answer = await self.scene.client.api.send(
                "POST", path, content=body, headers=headers,
                retry_seconds=0 if give_up else self.scene.load.patience_seconds,
                timeout_seconds=_GIVE_UP_SECONDS if give_up else None,
            )  # fmt: skip
        except NoAnswer:
            self.scene.figures.given_up += give_up
            self.scene.figures.unanswered += not give_up
            raise
        stored = answer.json()
        return stored["first_seq"], stored["last_seq"]

    async def _read(self) -> None:
        """A read that begins now has to show what was acknowledged before."""
        before = self.scene.checker.acknowledged(self.run_id)
        try:
            answer = await self.scene.client.api.send(
                "GET", f"/v1/runs/{self.run_id}", retry_seconds=_READ_SECONDS
            )
        except NoAnswer:
            return
        self.scene.checker.read(self.run_id, self.name, before, answer.json()["last_seq"])
