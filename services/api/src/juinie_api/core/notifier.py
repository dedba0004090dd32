"""Tells the publisher that outbox rows were committed, and whoever waits for work that runs became pending: after
the commit, at most once a millisecond.

On a connection of its own, so that no append waits for it or fails with it. What is lost here costs latency only:
who is woken polls behind it.
"""

import asyncio
from collections.abc import Awaitable, Callable

from juinie_api import telemetry
from juinie_api.store import waking
from juinie_shared.contracts.names import OUTBOX_CHANNEL, PENDING_CHANNEL
from juinie_shared.db.pool import Connection, driver_errors
from juinie_shared.domain.errors import Transient

REST_SECONDS = 0.001
SEND_SECONDS = 2.0
RETRY_SECONDS = 0.5

type Connect = Callable[[], Awaitable[Connection]]


class Notifier:
    """`run()` it in a task; a `wake…()` after each commit: it never blocks and never fails."""

    def __init__(
        self, connect: Connect, on_failure: Callable[[], None], report: Callable[[str], None]
    ) -> None:
        self._connect, self._on_failure, self._report = connect, on_failure, report
        self._sending = False
        self._committed = asyncio.Event()
        self._channels = set[str]()

    def wake(self) -> None:
        """Outbox rows were committed."""
        self._channels.add(OUTBOX_CHANNEL)
        self._committed.set()

    def wake_workers(self) -> None:
        """Outbox rows were committed, and a run is pending."""
        self._channels.add(PENDING_CHANNEL)
        self.wake()

    async def run(self) -> None:
        """Send for ever; a lost connection is made anew."""
        while True:
            try:
                await self._send_while_connected()
            except Transient:
                self._on_failure()
                if self._sending:
                    self._report(telemetry.NOTIFY_LOST)
                self._sending = False
                self._channels |= {OUTBOX_CHANNEL, PENDING_CHANNEL}  # what was not sent is sent again, once
                self._committed.set()
                await asyncio.sleep(RETRY_SECONDS)

    async def _send_while_connected(self) -> None:
        connection = await self._connect()
        try:
            with driver_errors():
                while True:
                    await self._committed.wait()
                    self._committed.clear()
                    channels, self._channels = self._channels, set[str]()
                    async with asyncio.timeout(SEND_SECONDS):
                        await connection.execute(";".join(map(waking.notify, sorted(channels))))
                    self._sending = True
                    await asyncio.sleep(REST_SECONDS)
        finally:
            connection.terminate()
