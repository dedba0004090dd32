"""Long polls of a run, for its end and for its events. What one says when it is over in vain was so just before, whatever broke meanwhile."""

import asyncio
import time
from typing import Any

import httpx

from juinie.answers import PAGE, RUN, read_object
from juinie.errors import NoAnswer, NotFound
from juinie.torture.scene import Scene

_LONGEST_SECONDS = 20.0
_ANSWER_SECONDS = 15.0
"""After the time to wait: then the answer does not come any more."""
_LONGEST_PAUSE_SECONDS = 1.0
_NOT_YET = 202
_ENDING_PAGE = {**PAGE, "last_seq": int, "finished": bool}


class EndPoll:
    """Waits for the run's end, again and again, until it was told of it, or that there is no such run any more."""

    name = "poll for the end"

    def __init__(self, scene: Scene, run_id: str) -> None:
        self._scene, self._run_id = scene, run_id
        self._asked_at = self._began = self._seconds = 0.0
        self._owed = 0
        """What was acknowledged before it asked."""

    async def watch(self) -> None:
        """Until it was told."""
        while not await self._one_poll():
            await asyncio.sleep(self._scene.chance.uniform(0, _LONGEST_PAUSE_SECONDS))

    async def _one_poll(self) -> bool:
        scene, checker = self._scene, self._scene.checker
        self._seconds = round(scene.chance.uniform(0, _LONGEST_SECONDS), 1)
        self._asked_at, self._began = scene.now(), time.monotonic()
        self._owed = checker.acknowledged(self._run_id)
        try:
            answer = await scene.client.api.send(
                "GET", f"/v1/runs/{self._run_id}{self._path()}",
                retry_seconds=0, timeout_seconds=self._seconds + _ANSWER_SECONDS,
            )  # fmt: skip
        except NoAnswer:
            return False
        except NotFound:
            if not checker.may_be_gone(self._run_id):
                raise
            checker.gone(self._run_id, scene.now())
            return True
        scene.figures.polls += 1
        checker.serve(self._run_id, self.name, self._asked_at, scene.now())
        return self._take(answer)

    def _path(self) -> str:
        return f"/wait?timeout_seconds={self._seconds}"

    def _take(self, answer: httpx.Response) -> bool:
        run = read_object(answer, RUN)
        self._read(run)
        if answer.status_code == _NOT_YET:
            self._in_vain(None)
            return False
        self._scene.checker.end_as(self._run_id, self.name, run["status"])
        return True

    def _read(self, found: dict[str, Any]) -> None:
        self._scene.checker.read(self._run_id, self.name, self._owed, found["last_seq"])

    def _in_vain(self, last_seq: int | None) -> None:
        """The run goes on, and has no events after this one, it was told. One that is told sooner than it asked for was let go by
        a server that stops; when an answer was given that something held up, nobody knows."""
        scene, over_at = self._scene, self._asked_at + self._seconds
        if scene.now() >= over_at and not scene.answers.held_up_since(self._began):
            scene.figures.polls_in_vain += 1
            scene.checker.wait_in_vain(self._run_id, self.name, last_seq, over_at)


class EventsPoll(EndPoll):
    """Waits for the next event after all that was acknowledged, likewise."""

    name = "poll for events"

    def _path(self) -> str:
        return f"/events?after_seq={self._owed}&limit=1&wait_seconds={self._seconds}"

    def _take(self, answer: httpx.Response) -> bool:
        page = read_object(answer, _ENDING_PAGE)
        self._read(page)
        if not page["finished"] and not page["events"]:
            self._in_vain(page["last_seq"])
        return page["finished"]
