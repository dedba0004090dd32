"""A watcher that drops its connection whenever it likes, comes back to any gateway, and tells the checker what it saw."""

import asyncio
import json
from contextlib import aclosing

import httpx

from juinie.connection import Connection, Ending, connect
from juinie.errors import Refused
from juinie.events import RUN_FINISHED, RunEvent
from juinie.sse import Frame
from juinie.torture.payloads import content, is_first, turn
from juinie.torture.scene import Scene

_SILENCE_SECONDS = 15.0
"""A comment comes every 10 s: who hears nothing for longer goes elsewhere."""
_LONGEST_AWAY_SECONDS = 2.0
_DROPS = 0.5
"""Of all connections, so many are dropped by the watcher."""


def show(scene: Scene, run_id: str, reader: str, event: RunEvent) -> None:
    """A reader has seen this event: all that the checker wants to know of it."""
    last = event.type == RUN_FINISHED
    scene.checker.see(
        run_id, reader, event.seq, content(event), event.raw, scene.now(), last, turn(event), is_first(event)
    )
    if last:
        scene.checker.end_as(run_id, reader, event.data["status"])


class TortureWatcher:
    """Watches one run to its end."""

    def __init__(self, scene: Scene, run_id: str, name: str) -> None:
        self._scene, self._run_id, self._name = scene, run_id, name
        self._position = 0
        self._ended = False
        self._until_drop: int | None = None

    async def watch(self) -> None:
        """Until it was told of the end."""
        while not self._ended:
            away = await self._one_connection()
            if not self._ended:
                await asyncio.sleep(min(away, _LONGEST_AWAY_SECONDS))

    async def _one_connection(self) -> float:
        """Gives how long to stay away."""
        scene, chance = self._scene, self._scene.chance
        url = f"{chance.choice(scene.client.stream_urls)}/v1/runs/{self._run_id}/stream"
        self._until_drop = int(chance.expovariate(1 / 200)) if chance.random() < _DROPS else None
        try:
            async with connect(
                scene.client.http, url, self._position, silence_seconds=_SILENCE_SECONDS
            ) as connection:
                scene.figures.connections += 1
                scene.checker.open(self._run_id, self._name, self._position, scene.now())
                await self._read(connection)
                return chance.uniform(0, 1) if self._dropping else connection.retry_seconds
        except httpx.TransportError:
            return chance.uniform(0.1, 1)
        except Refused as refusal:
            scene.figures.wrong_answers[f"stream: {refusal.status} {refusal.code}"] += 1
            return 1.0

    @property
    def _dropping(self) -> bool:
        return self._until_drop is not None and self._until_drop <= 0

    async def _read(self, connection: Connection) -> None:
        checker, run_id, name = self._scene.checker, self._run_id, self._name
        if connection.nothing_more:
            self._end(self._position)
            return
        async with aclosing(connection.batches()) as batches:
            async for frames in batches:
                for frame in frames:
                    self._take(frame)
                if self._dropping and not self._ended:
                    break
        if connection.ending is Ending.FALSE_END:
            checker.false_end(run_id, name)
        elif not self._ended:
            checker.drop(run_id, name)

    def _take(self, frame: Frame) -> None:
        if frame.name == "stream.end":
            told = json.loads(frame.data)
            self._scene.checker.end_as(self._run_id, self._name, told["status"])
            self._end(told["last_seq"])
        elif frame.name == "stream.reset":
            self._scene.checker.set_back(self._run_id, self._name, json.loads(frame.data)["last_seq"])
            self._position = 0
        elif frame.data and not frame.name:
            self._see(RunEvent.read(frame.data))
            self._scene.checker.move(self._run_id, self._name, frame.id)
        elif frame.id is not None:
            self._scene.checker.move(self._run_id, self._name, frame.id)
        self._position = self._position if frame.id is None else frame.id

    def _see(self, event: RunEvent) -> None:
        if self._until_drop is not None:
            self._until_drop -= 1
        show(self._scene, self._run_id, self._name, event)

    def _end(self, last_seq: int) -> None:
        self._ended = True
        self._scene.checker.end(self._run_id, self._name, last_seq)
