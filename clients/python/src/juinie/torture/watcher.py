"""A watcher that drops its connection whenever it likes, comes back to any gateway, and tells the checker what it saw."""

import asyncio
import json
from contextlib import aclosing
from typing import Literal

import httpx

from juinie.connection import Connection, Ending, connect
from juinie.errors import NotFound, Refused
from juinie.events import RUN_FINISHED, RunEvent
from juinie.sse import Frame
from juinie.torture.payloads import content, is_first, turn
from juinie.torture.scene import Scene

_SILENCE_SECONDS = 15.0
"""A comment comes every 10 s: who hears nothing for longer goes elsewhere."""
_LONGEST_AWAY_SECONDS = 2.0


def show(scene: Scene, run_id: str, reader: str, event: RunEvent) -> None:
    """A reader has seen this event: all that the checker wants to know of it."""
    last = event.type == RUN_FINISHED
    scene.checker.see(
        run_id, reader, event.seq, content(event), event.raw, scene.now(), last, turn(event), is_first(event),
        event.type,
    )  # fmt: skip
    if last:
        scene.checker.end_as(run_id, reader, event.data["status"])


def says_something(frame: Frame) -> bool:
    """Something of the run: not a comment, and not that one should come again."""
    return frame.id is not None or bool(frame.data and frame.name != "stream.reconnect")


class TortureWatcher:
    """Watches one run until it was told of the end, or that there is no such run any more. `types`: those that it asks for."""

    sort = "whole"
    drops = 0.5
    """Of all connections, so many are dropped by the watcher."""

    def __init__(self, scene: Scene, run_id: str, name: str, types: frozenset[str] | None = None) -> None:
        self._scene, self._run_id, self._name, self._types = scene, run_id, name, types
        self._position = 0
        self._ended = self._let_in = False
        self._until_drop: int | None = None
        self._asked_at, self._owed = 0.0, 0
        """When the last connection was asked for, and what was acknowledged before."""

    async def watch(self) -> None:
        """Until it was told."""
        self._scene.checker.watch(self._run_id, self._name, self._types)
        while not self._ended:
            away = await self._one_connection()
            if not self._ended:
                await asyncio.sleep(min(away, _LONGEST_AWAY_SECONDS))

    async def _one_connection(self) -> float:
        """Gives how long to stay away."""
        scene, chance = self._scene, self._scene.chance
        self._until_drop = int(chance.expovariate(1 / 200)) if chance.random() < self.drops else None
        types = ",".join(sorted(self._types)) if self._types else None
        try:
            token = await self._token()
            self._asked_at, self._owed = scene.now(), scene.checker.acknowledged(self._run_id)
            async with connect(
                scene.client.http, self._url(self._run_id), self._after, token=token, types=types,
                silence_seconds=_SILENCE_SECONDS,
            ) as connection:  # fmt: skip
                self._open()
                await self._read(connection)
                return chance.uniform(0, 1) if self._dropping else connection.retry_seconds
        except httpx.TransportError:
            return chance.uniform(0.1, 1)
        except Refused as refusal:
            return self._take_refusal(refusal)

    # ---- what other sorts do otherwise

    @property
    def _after(self) -> int | Literal["tail"]:
        return self._position

    async def _token(self) -> str | None:
        """In place of the key."""
        return None

    def _open(self) -> None:
        """It was let in."""
        self._count()
        self._scene.checker.open(self._run_id, self._name, self._position, self._scene.now())

    def _take_refusal(self, refusal: Refused) -> float:
        """Gives how long to stay away."""
        checker = self._scene.checker
        if isinstance(refusal, NotFound) and checker.may_be_gone(self._run_id):
            self._ended = True
            self._scene.figures.turned_away += 1
            checker.turn_away(self._run_id, self._name, self._scene.now())
        else:
            self._scene.figures.wrong_answers[f"stream: {refusal.status} {refusal.code}"] += 1
        return 1.0

    def _have_nothing_more(self) -> None:
        """204."""
        self._end(self._position)

    def _is_served(self) -> None:
        """Something of the run came."""
        self._scene.checker.serve(self._run_id, self._name, self._asked_at, self._scene.now())

    def _take(self, frame: Frame) -> None:
        checker, run_id, name = self._scene.checker, self._run_id, self._name
        if frame.name == "stream.end":
            told = json.loads(frame.data)
            checker.end_as(run_id, name, told["status"])
            self._end(told["last_seq"])
        elif frame.name == "stream.reset":
            checker.set_back(run_id, name, json.loads(frame.data)["last_seq"])
            self._position = 0
        elif frame.name == "stream.caught_up":
            checker.catch_up(run_id, name, self._owed, json.loads(frame.data)["last_seq"])
        elif frame.data and not frame.name:
            self._see(RunEvent.read(frame.data))
            checker.move(run_id, name, frame.id)
        elif frame.id is not None:
            checker.skip(run_id, name, frame.id)
        self._position = self._position if frame.id is None else frame.id

    # ---- what all do

    def _url(self, run_id: str) -> str:
        """The stream of this run, at any gateway."""
        return f"{self._scene.chance.choice(self._scene.client.stream_urls)}/v1/runs/{run_id}/stream"

    def _count(self) -> None:
        self._scene.figures.connections += 1
        if not self._let_in:
            self._let_in = True
            self._scene.figures.watchers[self.sort] += 1

    @property
    def _dropping(self) -> bool:
        return self._until_drop is not None and self._until_drop <= 0

    async def _read(self, connection: Connection) -> None:
        checker, run_id, name = self._scene.checker, self._run_id, self._name
        if connection.nothing_more:
            self._is_served()
            self._have_nothing_more()
            return
        async with aclosing(connection.batches()) as batches:
            async for frames in batches:
                if any(map(says_something, frames)):
                    self._is_served()
                for frame in frames:
                    self._take(frame)
                if self._dropping and not self._ended:
                    break
        if connection.ending is Ending.FALSE_END:
            checker.false_end(run_id, name)
        elif not self._ended:
            checker.drop(run_id, name)

    def _see(self, event: RunEvent) -> None:
        if self._until_drop is not None:
            self._until_drop -= 1
        show(self._scene, self._run_id, self._name, event)

    def _end(self, last_seq: int) -> None:
        self._ended = True
        self._scene.checker.end(self._run_id, self._name, last_seq)


class FilterWatcher(TortureWatcher):
    """Asks for some types."""

    sort = "types"
