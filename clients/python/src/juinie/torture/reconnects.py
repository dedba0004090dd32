"""Reconnects at random positions of runs that are known: each connection has to bring exactly what follows.

Every reconnect is a connection of its own, to any gateway, after any position of any run, and reads a bounded number of
events. Finished runs and open ones are asked alike.
"""

import asyncio
import itertools
import json
import time
from contextlib import aclosing
from datetime import UTC, datetime

import httpx

from juinie.connection import Connection, Ending, connect
from juinie.errors import Refused
from juinie.events import RunEvent
from juinie.sse import Frame
from juinie.torture.payloads import batch
from juinie.torture.scene import Scene
from juinie.torture.summary import Summary, summary
from juinie.torture.trouble import told_what_is_in_the_way
from juinie.torture.watcher import show
from juinie.torture.writer import read_back

_AT_ONCE = 100
_RUNS = 40
_LARGEST_RUN = 500
_LARGEST_APPEND = 100
_READ_AT_MOST = 20
_WAIT_SECONDS = 10.0


async def reconnects(scene: Scene, count: int, at_once: int) -> None:
    """`count` reconnects, `at_once` at a time. What was wrong is in the checker's findings."""
    runs = {
        f"reconnects-{number}": await _make_run(scene, finished=number % 2 == 0) for number in range(_RUNS)
    }
    numbers = itertools.count(1)

    async def some() -> None:
        while not scene.stopping.is_set() and (number := next(numbers)) <= count:
            run_id, last_seq, finished = scene.chance.choice(list(runs.values()))
            await Reconnect(scene, run_id, last_seq, finished, f"reconnect {number}").go()

    async with asyncio.TaskGroup() as group:
        for _ in range(at_once):
            group.create_task(some())
    for run_id, _, finished in runs.values():
        if not finished:
            await _finish(scene, run_id)
        await read_back(scene, run_id)
        scene.checker.conclude(run_id)


async def only_reconnects(scene: Scene, count: int, seed: int) -> Summary:
    """Without faults: what is tried is every position, at every gateway. Gives the figures."""
    began_at, began = datetime.now(UTC).isoformat(timespec="seconds"), time.monotonic()
    in_the_way = await told_what_is_in_the_way(reconnects(scene, count, _AT_ONCE))
    return summary(scene, (), seed, began_at, time.monotonic() - began, broken_off=in_the_way)


async def _make_run(scene: Scene, finished: bool) -> tuple[str, int, bool]:
    """A run of up to 500 events. Gives its id, its last seq, and whether it is finished."""
    run_id = (await scene.client.create_run("torture-reconnects"))["run_id"]
    left, last_seq = scene.chance.randint(1, _LARGEST_RUN - 3), 0
    for number in itertools.count():
        size = min(left, _LARGEST_APPEND)
        body, contents = batch(scene.chance, "p", number, size)
        scene.checker.send(run_id, str(number), contents)
        path = f"/v1/runs/{run_id}/events"
        answer = await scene.client.api.send(
            "POST", path, content=body, headers={"Idempotency-Key": str(number)}
        )
        stored, left = answer.json(), left - size
        last_seq = stored["last_seq"]
        scene.checker.acknowledge(run_id, str(number), stored["first_seq"], last_seq, scene.now())
        if not left:
            break
    if finished:
        last_seq = await _finish(scene, run_id)
    return run_id, last_seq, finished


async def _finish(scene: Scene, run_id: str) -> int:
    last_seq: int = (await scene.client.finish(run_id))["last_seq"]
    scene.checker.finish(run_id, last_seq, scene.now())
    return last_seq


class Reconnect:
    """One connection after a random position."""

    def __init__(self, scene: Scene, run_id: str, last_seq: int, finished: bool, name: str) -> None:
        self._scene, self._run_id, self._name = scene, run_id, name
        self._last_seq, self._finished = last_seq, finished
        self._after = self._position = scene.chance.randint(0, last_seq)
        self._until = min(last_seq, self._after + scene.chance.randint(1, _READ_AT_MOST))
        self._ended = False

    async def go(self) -> None:
        """Until it was answered."""
        while not await self._answered():
            self._scene.checker.drop(self._run_id, self._name)
            await asyncio.sleep(0.2)
        self._scene.checker.leave(self._run_id, self._name)

    async def _answered(self) -> bool:
        """False where the connection failed: that is allowed, and what it brought has been checked."""
        scene = self._scene
        url = f"{scene.chance.choice(scene.client.stream_urls)}/v1/runs/{self._run_id}/stream"
        try:
            async with (
                asyncio.timeout(_WAIT_SECONDS),
                connect(scene.client.http, url, self._position) as connection,
            ):
                scene.figures.connections += 1
                scene.checker.open(self._run_id, self._name, self._position, scene.now())
                await self._read(connection)
        except (httpx.TransportError, TimeoutError):
            return False
        except Refused as refusal:
            scene.figures.wrong_answers[f"stream: {refusal.status} {refusal.code}"] += 1
            return True
        return self._ended or self._position >= self._until

    async def _read(self, connection: Connection) -> None:
        if connection.nothing_more:
            if not (self._finished and self._position == self._last_seq):
                self._scene.figures.wrong_answers["stream: 204 before the end"] += 1
            self._ended = True
            return
        async with aclosing(connection.batches()) as batches:
            async for frames in batches:
                for frame in frames:
                    self._take(frame)
                if self._position >= self._until and not self._waits_for_the_end:
                    return
        if connection.ending is Ending.FALSE_END:
            self._scene.checker.false_end(self._run_id, self._name)

    @property
    def _waits_for_the_end(self) -> bool:
        return self._finished and self._position >= self._last_seq and not self._ended

    def _take(self, frame: Frame) -> None:
        """Where it is, events say, and no id alone."""
        checker = self._scene.checker
        if frame.name == "stream.end":
            self._ended, told = True, json.loads(frame.data)
            checker.end_as(self._run_id, self._name, told["status"])
            checker.end(self._run_id, self._name, told["last_seq"])
        elif frame.data and not frame.name:
            event = RunEvent.read(frame.data)
            show(self._scene, self._run_id, self._name, event)
            checker.move(self._run_id, self._name, frame.id)
            self._position = event.seq
        elif frame.id is not None:
            checker.move(self._run_id, self._name, frame.id)
