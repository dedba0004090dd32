"""Open streams do not outlive the keys behind them: asked about in one query, well within the promised 60 s."""

import asyncio
from collections.abc import Awaitable, Callable, Collection

from juinie_shared.domain.ids import KeyId
from juinie_shared.runtime.pace import a_few_a_turn
from juinie_shared.runtime.tries import Tries
from juinie_stream_gateway.core.hub import SLICE, Hub

REASON = "credential"

type Forget = Callable[[Collection[KeyId]], None]
type ValidKeys = Callable[[Collection[KeyId]], Awaitable[set[KeyId]]]


class CredentialCheck:
    """Closes the streams whose API key (or the key behind their token) was revoked or has expired."""

    def __init__(self, hub: Hub, valid_keys: ValidKeys, forget: Forget, every_seconds: float) -> None:
        self._hub = hub
        self._valid_keys = valid_keys
        self._forget = forget
        self._every_seconds = every_seconds

    async def run(self, tries: Tries) -> None:
        while True:
            await asyncio.sleep(self._every_seconds)
            held = {key_id for room in self._hub.rooms() for key_id in room.watchers.values()}
            if held:
                with tries:
                    await self.check(held)

    async def check(self, held: set[KeyId]) -> None:
        refused = held - await self._valid_keys(held)
        self._forget(refused)  # before anybody who is sent away can come back
        leaving = [
            watcher
            for room in self._hub.rooms()
            for watcher, key_id in room.watchers.items()
            if key_id in refused
        ]
        async for watcher in a_few_a_turn(leaving, SLICE):
            watcher.outlet.reconnect(REASON)
