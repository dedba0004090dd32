"""Keeps the one connection of this process that listens, and says which channel was heard.

A notification only says that there is something to look for. One that is lost costs latency and nothing else:
whoever is told here polls behind it.
"""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Mapping

from juinie_api import telemetry
from juinie_api.store import waking
from juinie_shared.db.pool import Connection, driver_errors
from juinie_shared.domain.errors import Transient

RETRY_SECONDS = 1.0
CHECK_SECONDS = 5.0
"""A connection that only listens never notices that its other end is gone: it is asked this often."""

type Connect = Callable[[], Awaitable[Connection]]
type Heard = Mapping[str, Callable[[], None]]
"""What to call, by channel."""


class Listener:
    """`run()` it in a task. All channels count as heard whenever a connection was made: something may have been missed."""

    def __init__(self, connect: Connect, heard: Heard, report: Callable[[str], None]) -> None:
        self._connect, self._heard, self._report = connect, heard, report
        self._listening = False

    async def run(self) -> None:
        """Listen for ever, as long as there is a database."""
        while True:
            with contextlib.suppress(Transient):
                await self._listen_once()
            if self._listening:
                self._listening = False
                self._report(telemetry.LISTEN_LOST)
            await asyncio.sleep(RETRY_SECONDS)

    async def _listen_once(self) -> None:
        connection = await self._connect()
        lost = asyncio.Event()
        try:
            with driver_errors():
                connection.add_termination_listener(lambda *_: lost.set())
                async with asyncio.timeout(CHECK_SECONDS):
                    for channel in self._heard:
                        await connection.add_listener(channel, self._on_notification)
                self._listening = True
                for call in self._heard.values():
                    call()
                await self._until_lost(connection, lost)
        finally:
            connection.terminate()

    def _on_notification(self, _connection: object, _pid: int, channel: str, _payload: str) -> None:
        self._heard[channel]()

    async def _until_lost(self, connection: Connection, lost: asyncio.Event) -> None:
        again = ";".join(waking.listen(channel) for channel in self._heard)
        while not lost.is_set():
            try:
                async with asyncio.timeout(CHECK_SECONDS):
                    await lost.wait()
            except TimeoutError:
                async with asyncio.timeout(CHECK_SECONDS):
                    await connection.execute(again)
