"""Rings the doorbell when Postgres says that outbox rows were committed.

On its own connection, made again whenever it is lost. The relay polls behind it, so a lost notification costs 100 ms.
"""

import asyncio
from contextlib import suppress

from juinie_publisher.core.doorbell import Doorbell
from juinie_publisher.telemetry import Telemetry
from juinie_shared.contracts.names import OUTBOX_CHANNEL
from juinie_shared.db.pool import Connection, connect, driver_errors
from juinie_shared.domain.errors import Transient

RETRY_SECONDS = 0.5
CHECK_SECONDS = 10.0
"""How long a connection may be dead before it is noticed: one that was cut without a word says nothing."""


async def listen(database_url: str, doorbell: Doorbell, telemetry: Telemetry) -> None:
    """Listen until cancelled."""
    while True:
        with suppress(Transient):
            connection = await connect(database_url, "juinie-publisher-listen")
            try:
                await _listen_on(connection, doorbell, telemetry)
            finally:
                connection.terminate()
        telemetry.listening(False)
        await asyncio.sleep(RETRY_SECONDS)


async def _listen_on(connection: Connection, doorbell: Doorbell, telemetry: Telemetry) -> None:
    """Listen until the connection is lost."""
    lost = asyncio.Event()
    connection.add_termination_listener(lambda *_: lost.set())
    with driver_errors():
        async with asyncio.timeout(CHECK_SECONDS):
            await connection.add_listener(OUTBOX_CHANNEL, lambda *_: doorbell.ring())
        telemetry.listening(True)
        doorbell.ring()  # for what was committed while nobody listened
        while not connection.is_closed():
            with suppress(TimeoutError):
                async with asyncio.timeout(CHECK_SECONDS):
                    await lost.wait()
            if not lost.is_set():
                async with asyncio.timeout(CHECK_SECONDS):
                    await connection.fetchval("SELECT 1")
