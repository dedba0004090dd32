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
    """`run()` it in a task; a `wake…()` after each commit: it never blocks and never fails. Where nothing was sent just now, the
    wake-up is on its way when that returns.
    """

    def __init__(
        self, connect: Connect, on_failure: Callable[[], None], report: Callable[[str], None]
    ) -> None:
        self._connect, self._on_failure, self._report = connect, on_failure, report
        self._sending = False
        self._channels = set[str]()
        self._resting: Connection | None = None
        """What waits for the next wake-up."""
        self._woken = asyncio.Event()
        self._under_way: asyncio.Task[None] | None = None
        self._rests_until = 0.0

    def wake(self) -> None:
        """Outbox rows were committed."""
        self._channels.add(OUTBOX_CHANNEL)
        connection, self._resting = self._resting, None
        if connection is not None:
            self._begin(connection)

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
                await asyncio.sleep(RETRY_SECONDS)

    def _begin(self, connection: Connection) -> None:
        """At once where there was a rest: a task that is woken for it would come behind the answers of what was committed."""
        loop = asyncio.get_running_loop()
        if loop.time() >= self._rests_until:
            self._under_way = asyncio.Task(self._send(connection), loop=loop, eager_start=True)
        self._woken.set()

    async def _send_while_connected(self) -> None:
        connection = await self._connect()
        try:
            with driver_errors():
                while True:
                    await self._send_next(connection)
        finally:
            self._resting = None
            if self._under_way is not None:
                self._under_way.cancel()
                self._under_way = None
            connection.terminate()

    async def _send_next(self, connection: Connection) -> None:
        """What is to be told, or what will be."""
        if not self._channels:
            self._woken.clear()
            self._resting = connection
            await self._woken.wait()
        under_way, self._under_way = self._under_way, None
        if under_way is not None:
            await under_way
        else:
            await asyncio.sleep(self._rests_until - asyncio.get_running_loop().time())
            await self._send(connection)

    async def _send(self, connection: Connection) -> None:
        channels, self._channels = self._channels, set[str]()
        async with asyncio.timeout(SEND_SECONDS):
            await connection.execute(";".join(map(waking.notify, sorted(channels))))
        self._sending = True
        self._rests_until = asyncio.get_running_loop().time() + REST_SECONDS
