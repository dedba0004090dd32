"""One timer for all streams: heartbeats where it is quiet, and cursors past what `types` leaves out."""

import asyncio
from collections.abc import Iterable

from juinie_stream_gateway.core.hub import Hub
from juinie_stream_gateway.core.watcher import Watcher

TICK_SECONDS = 1.0


class Pulse:
    """Ticks often enough for both; what a tick means to a stream the watcher knows."""

    def __init__(self, hub: Hub, heartbeat_seconds: float, cursor_seconds: float) -> None:
        self._hub = hub
        self._tick_seconds = min(TICK_SECONDS, heartbeat_seconds, cursor_seconds)
        self._heartbeat_ticks = round(heartbeat_seconds / self._tick_seconds)
        self._cursor_ticks = round(cursor_seconds / self._tick_seconds)
        self._ticks = 0

    async def run(self) -> None:
        while True:
            await asyncio.sleep(self._tick_seconds)
            self.tick(self._hub.watchers())

    def tick(self, watchers: Iterable[Watcher]) -> None:
        self._ticks += 1
        for watcher in watchers:
            if self._ticks % self._cursor_ticks == 0:
                watcher.move_cursor()
            watcher.beat(self._heartbeat_ticks)
