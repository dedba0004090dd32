"""Workers: they claim runs, write with their lease, and finish. Some die without a word, some oversleep and go on."""

import asyncio
import itertools
from enum import StrEnum
from typing import Any

from juinie.claims import Claim
from juinie.errors import LeaseLost, NoAnswer, Refused, RunFinished
from juinie.torture.payloads import batch
from juinie.torture.scene import Scene

LEASE_SECONDS = 5
"""The shortest there is."""
_WAIT_SECONDS = 2
_OVERSLEEP_SECONDS = 8.0
"""By then the lease is lost: it ran out, and the sweeper came by."""
_LARGEST_APPEND = 20
_HEARTBEATS = 0.3


class Fate(StrEnum):
    """What becomes of a worker on a run."""

    FINISHES = "finishes"
    DIES = "dies"
    OVERSLEEPS = "oversleeps"


_FATES = (*[Fate.FINISHES] * 6, Fate.DIES, Fate.DIES, Fate.OVERSLEEPS)


async def work_for_ever(scene: Scene, name: str) -> None:
    """One run after the other, until the scene is stopping and no run waits for its end."""
    while scene.jobs or not scene.stopping.is_set():
        try:
            claim = await scene.client.claim(
                [scene.work_agent], name, lease_seconds=LEASE_SECONDS, wait_seconds=_WAIT_SECONDS
            )
        except NoAnswer:
            continue  # it may have taken a run all the same: that one's lease runs out
        except Refused as refusal:
            scene.figures.wrong_answers[f"claim: {refusal.status} {refusal.code}"] += 1
            await asyncio.sleep(1)
            continue
        if claim is not None:
            await work_on(scene, claim, name)


async def work_on(scene: Scene, claim: Claim, worker: str) -> None:
    """One attempt, to whatever end."""
    job = scene.jobs.get(claim.run_id)
    if job is None:
        return  # it was concluded while the answer was on its way
    with job.worked_on():
        scene.figures.claims += 1
        scene.checker.claim(claim.run_id, claim.attempt, worker)
        await _Attempt(scene, claim, worker, job.appends).go()


class _Attempt:
    """A worker on its run. `_over` once it was told that it has nothing more to do there."""

    def __init__(self, scene: Scene, claim: Claim, worker: str, appends: int) -> None:
        self._scene, self._claim, self._appends = scene, claim, appends
        self._name = f"{worker}.{claim.attempt}"
        self._fate = scene.chance.choice(_FATES)
        self._fated_at = scene.chance.randint(0, appends - 1)
        self._numbers = itertools.count()
        self._over = False

    async def go(self) -> None:
        """Append, now and then with a heartbeat, and finish."""
        for number in range(self._appends):
            if number == self._fated_at and self._fate is Fate.DIES:
                return
            if number == self._fated_at and self._fate is Fate.OVERSLEEPS:
                await asyncio.sleep(_OVERSLEEP_SECONDS)
            await self._append()
            if not self._over and self._scene.chance.random() < _HEARTBEATS:
                await self._heartbeat()
            if self._over:
                return
        await self._finish("success")

    async def _append(self) -> None:
        """One that was refused because the lease is lost is followed by another, which has to be refused as well."""
        if await self._try_append() is LeaseLost:
            await self._try_append()

    async def _try_append(self) -> type[Refused] | None:
        scene, run_id = self._scene, self._claim.run_id
        number, size = next(self._numbers), scene.chance.randint(1, _LARGEST_APPEND)
        key = f"{self._name}.{number}"
        await scene.pace(size)
        body, contents = batch(scene.chance, self._name, number, size)
        scene.checker.send(run_id, key, contents, self._claim.attempt)
        scene.figures.appends += 1
        try:
            stored = await self._post("events", key, body)
        except Refused as refusal:
            scene.checker.refuse(run_id, key, refusal.after_no_answer)
            self._take(refusal)
            return type(refusal)
        except NoAnswer:
            scene.figures.unanswered += 1
            self._over = True
            return None
        scene.checker.acknowledge(run_id, key, stored["first_seq"], stored["last_seq"], scene.now())
        if stored["cancel_requested"]:
            await self._finish("cancelled")
        return None

    async def _heartbeat(self) -> None:
        try:
            answer = await self._claim.heartbeat()
        except Refused as refusal:
            self._take(refusal)
        except NoAnswer:
            self._over = True
        else:
            if answer["cancel_requested"]:
                await self._finish("cancelled")

    async def _finish(self, status: str) -> None:
        self._over = True
        body = b'{"status":"%b"}' % status.encode()
        try:
            finished = await self._post("finish", f"{self._name}.finish", body)
        except Refused as refusal:
            self._take(refusal)
        except NoAnswer:
            return  # the run's end is looked up
        else:
            checker, run_id = self._scene.checker, self._claim.run_id
            checker.finish(run_id, finished["last_seq"], self._scene.now())
            checker.end_as(run_id, self._name, finished["status"])

    async def _post(self, what: str, key: str, body: bytes) -> dict[str, Any]:
        answer = await self._scene.client.api.send(
            "POST", f"/v1/runs/{self._claim.run_id}/{what}", content=body,
            headers={"Idempotency-Key": key, "Juinie-Lease": self._claim.lease},
            retry_seconds=self._scene.load.patience_seconds,
        )  # fmt: skip
        return answer.json()

    def _take(self, refusal: Refused) -> None:
        """A lost lease and a run that has ended are what a worker has to expect; nothing else is."""
        self._over = True
        if isinstance(refusal, LeaseLost):
            self._scene.figures.leases_lost += 1
            self._scene.checker.lose_lease(self._claim.run_id, self._claim.attempt)
        elif not isinstance(refusal, RunFinished):
            self._scene.figures.wrong_answers[f"worker: {refusal.status} {refusal.code}"] += 1
