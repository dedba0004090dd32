"""Tells the publisher that outbox rows were committed: after the commit, at most once a millisecond.

On a connection of its own, so that no append waits for it or fails with it. What is lost here costs latency only:
the publisher polls behind it.
"""

import asyncio
from collections.abc import Awaitable, Callable

from juinie_api.store import waking
from juinie_shared.contracts.names import OUTBOX_CHANNEL
from juinie_shared.db.pool import Connection, driver_errors
from juinie_shared.domain.errors import Transient

REST_SECONDS = 0.001
SEND_SECONDS = 2.0
RETRY_SECONDS = 0.5

type Connect = Callable[[], Awaitable[Connection]]


class Notifier:
    """`run()` it in a task; `wake()` after each commit: it never blocks and never fails."""

    def __init__(self, connect: Connect, on_failure: Callable[[], None]) -> None:
        self._connect, self._on_failure = connect, on_failure
        self._committed = asyncio.Event()

    def wake(self) -> None:
        self._committed.set()

    async def run(self) -> None:
        """Send for ever; a lost connection is made anew."""
        while True:
            try:
                await self._send_while_connected()
            except Transient:
                self._on_failure()
                self._committed.set()  # what was not sent is sent again, once, to whoever listens then
                await asyncio.sleep(RETRY_SECONDS)

    async def _send_while_connected(self) -> None:
        connection = await self._connect()
        try:
            with driver_errors():
                while True:
                    await self._committed.wait()
                    self._committed.clear()
                    async with asyncio.timeout(SEND_SECONDS):
                        await connection.execute(waking.NOTIFY.format(channel=OUTBOX_CHANNEL))
                    await asyncio.sleep(REST_SECONDS)
        finally:
            connection.terminate()
