"""Rings a doorbell when Postgres says that there is something for it.

On its own connection, made again whenever it is lost. Who waits at a bell looks by the clock too, so a notification that
is lost costs time only: the relay 100 ms.
"""

import asyncio
from collections.abc import Callable, Mapping
from contextlib import suppress

from juinie_publisher.core.doorbell import Doorbell
from juinie_publisher.telemetry import Telemetry
from juinie_shared.db.pool import Connection, connect, driver_errors
from juinie_shared.domain.errors import Transient

RETRY_SECONDS = 0.5
CHECK_SECONDS = 10.0
"""How long a connection may be dead before it is noticed: one that was cut without a word says nothing."""


async def listen(database_url: str, bells: Mapping[str, Doorbell], telemetry: Telemetry) -> None:
    """Listen on these channels until cancelled."""
    while True:
        with suppress(Transient):
            connection = await connect(database_url, "juinie-publisher-listen")
            try:
                await _listen_on(connection, bells, telemetry)
            finally:
                connection.terminate()
        telemetry.listening(False)
        await asyncio.sleep(RETRY_SECONDS)


async def _listen_on(connection: Connection, bells: Mapping[str, Doorbell], telemetry: Telemetry) -> None:
    """Listen until the connection is lost."""
    lost = asyncio.Event()
    connection.add_termination_listener(lambda *_: lost.set())
    with driver_errors():
        async with asyncio.timeout(CHECK_SECONDS):
            for channel, bell in bells.items():
                await connection.add_listener(channel, _ringing(bell))
        telemetry.listening(True)
        for bell in bells.values():
            bell.ring()  # for what was committed while nobody listened
        while not connection.is_closed():
            with suppress(TimeoutError):
                async with asyncio.timeout(CHECK_SECONDS):
                    await lost.wait()
            if not lost.is_set():
                async with asyncio.timeout(CHECK_SECONDS):
                    await connection.fetchval("SELECT 1")


def _ringing(bell: Doorbell) -> Callable[..., None]:
    return lambda *_: bell.ring()
