"""One timer for all streams: heartbeats where it is quiet, and cursors past what `types` leaves out."""

import asyncio

from juinie_shared.runtime.pace import a_few_a_turn
from juinie_stream_gateway.core.hub import Hub

TICK_SECONDS = 1.0
AT_ONCE = 200
"""Watchers that are looked at, and written to, in one turn of the loop. Of a crowd that came together all are due together."""


class Pulse:
    """Ticks often enough for both; what a tick means to a stream the watcher knows."""

    def __init__(self, hub: Hub, heartbeat_seconds: float, cursor_seconds: float) -> None:
        self._hub = hub
        self._tick_seconds = min(TICK_SECONDS, heartbeat_seconds, cursor_seconds)
        self._heartbeat_ticks = round(heartbeat_seconds / self._tick_seconds)
        self._cursor_ticks = round(cursor_seconds / self._tick_seconds)
        self._ticks = 0

    async def run(self) -> None:
        loop = asyncio.get_running_loop()
        took = 0.0
        while True:
            await asyncio.sleep(max(0.0, self._tick_seconds - took))
            began = loop.time()
            await self._tick()
            took = loop.time() - began

    async def _tick(self) -> None:
        self._ticks += 1
        async for watcher in a_few_a_turn(self._hub.watchers(), AT_ONCE):
            if self._ticks % self._cursor_ticks == 0:
                watcher.move_cursor()
            watcher.beat(self._heartbeat_ticks)
