"""Watchers that carry a stream token in place of the key: renewed in time, or used until it is refused; and never for another run."""

import asyncio
import math
from contextlib import aclosing
from typing import NamedTuple

import httpx

from juinie.connection import Connection, connect
from juinie.errors import NotFound, Refused
from juinie.torture.scene import Scene
from juinie.torture.watcher import TortureWatcher, says_something

RENEWED_SECONDS, SHORT_SECONDS = 20, 1
"""What those ask for who renew in time, and those who do not."""
LEEWAY_SECONDS = 30.0
"""For clocks: a token is good for so much longer."""
OVERSTAYS_SECONDS = 20.0
"""What was sent in time may be under way for as long, and no longer: who hears nothing for 15 s has gone elsewhere."""
_RENEW = 0.75
"""Of its life, a token is used by who renews it in time."""
_ELSEWHERE = 0.3
_TRY_SECONDS = 5.0
_UNAUTHENTICATED = 401


class Token(NamedTuple):
    """Asked for and given then, by the clock of the scene: the moment of its making lies in between."""

    text: str
    asked_at: float
    given_at: float
    ttl_seconds: int

    def may_be_refused(self, now: float) -> bool:
        """Its moment of expiry, in whole seconds, may have come."""
        return now >= self.asked_at + self.ttl_seconds - 1

    def expired_for(self, now: float) -> float:
        """Seconds since it was good for the last time, at least; negative while it may be good."""
        return now - (self.given_at + self.ttl_seconds + LEEWAY_SECONDS)


class TokenWatcher(TortureWatcher):
    """`careful`: leaves its connection in time to come back with another token. Else it is sent away, and asks when it is refused."""

    sort = "token"

    def __init__(self, scene: Scene, run_id: str, name: str, careful: bool = True) -> None:
        super().__init__(scene, run_id, name)
        self._careful = careful
        self.drops = self.drops if careful else 0  # who would see how long a connection lasts stays on it
        self._now: Token | None = None

    async def _token(self) -> str:
        if self._now is None or self._scene.now() >= (self._renew_at or math.inf):
            self._now = await self._mint()
            if self._scene.chance.random() < _ELSEWHERE:
                await self._try_elsewhere(self._now.text)
        return self._now.text

    async def _mint(self) -> Token:
        asked_at, ttl_seconds = self._scene.now(), RENEWED_SECONDS if self._careful else SHORT_SECONDS
        text = await self._scene.client.stream_token(self._run_id, ttl_seconds)
        return Token(text, asked_at, self._scene.now(), ttl_seconds)

    @property
    def _renew_at(self) -> float | None:
        return self._now.asked_at + _RENEW * self._now.ttl_seconds if self._now and self._careful else None

    async def _read(self, connection: Connection) -> None:
        try:
            async with asyncio.timeout_at(self._renew_at):
                await super()._read(connection)
        except TimeoutError:
            self._scene.checker.drop(self._run_id, self._name)

    def _is_served(self) -> None:
        super()._is_served()
        over = self._now.expired_for(self._scene.now()) if self._now else 0.0
        if over > OVERSTAYS_SECONDS:
            what = f"served {over:.1f} s after its token expired"
            self._scene.checker.trespass(self._run_id, self._name, what)

    def _take_refusal(self, refusal: Refused) -> float:
        expired = self._now is not None and self._now.may_be_refused(self._scene.now())
        if refusal.status != _UNAUTHENTICATED or not expired:
            return super()._take_refusal(refusal)
        self._scene.figures.tokens_expired += 1
        self._now = None
        return 0.0

    async def _try_elsewhere(self, token: str) -> None:
        """Another run of the same tenant is not what it is for."""
        scene, others = self._scene, sorted(self._scene.open_runs - {self._run_id})
        if not others:
            return
        other = scene.chance.choice(others)
        try:
            async with (
                asyncio.timeout(_TRY_SECONDS),
                connect(scene.client.http, self._url(other), 0, token=token) as connection,
            ):
                if await _brings_something(connection):
                    scene.checker.trespass(self._run_id, self._name, f"its token opened the run {other}")
        except NotFound:
            return
        except Refused as refusal:
            scene.figures.wrong_answers[f"stream of another run: {refusal.status} {refusal.code}"] += 1
        except (httpx.TransportError, TimeoutError):
            return


async def _brings_something(connection: Connection) -> bool:
    async with aclosing(connection.batches()) as batches:
        async for frames in batches:
            if any(map(says_something, frames)):
                return True
    return connection.nothing_more
