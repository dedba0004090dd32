"""Whether the gateway can serve: asked in the background, so that the probe answers at once whatever hangs.

Kafka being away does not make it unready: streams go on from Postgres. It only has to have been tried.
"""

import asyncio
from collections.abc import Awaitable, Callable

from juinie_shared.db.keys import refuse_dev_key
from juinie_shared.db.pool import Pool
from juinie_shared.db.schema import check_schema
from juinie_shared.domain.errors import DevKeyOutsideDev, Misconfigured, SessionsShared, Transient
from juinie_shared.runtime.logs import get_logger
from juinie_stream_gateway.telemetry import LOG_DRAINING, LOG_NOT_READY, LOG_READY

EVERY_SECONDS = 1.0

_log = get_logger("service")


class Readiness:
    """Holds what is still waited for. `run` keeps it true."""

    def __init__(
        self,
        pool: Pool,
        check_sessions: Callable[[], Awaitable[None]],
        dev: bool,
        kafka_tried: asyncio.Event,
    ) -> None:
        self._pool = pool
        self._check_sessions = check_sessions
        self._dev = dev
        self._kafka_tried = kafka_tried
        self._database: str | None = "The database has not been asked yet."
        self._draining = False
        self._dev_key_looked_for = False
        self.database_was_ready = False

    async def waiting_for(self) -> list[str]:
        """One line for each thing that is missing."""
        missing = [self._database] if self._database else []
        if not self._kafka_tried.is_set():
            missing.append("Kafka has not been tried yet.")
        return [*missing, "Draining."] if self._draining else missing

    def drain(self) -> None:
        self._draining = True
        _log.info(LOG_DRAINING)

    async def run(self) -> None:
        """For ever.

        Raises:
            DevKeyOutsideDev: the database holds the key that the README prints, and this is no place for it.
            SessionsShared: a pooler stands before the database, in a mode that we cannot work with.
        """
        while True:
            found = await self._ask()
            if found != self._database:
                self._database = found
                _log.warning(LOG_NOT_READY, waiting_for=[found]) if found else _log.info(LOG_READY)
            await asyncio.sleep(EVERY_SECONDS)

    async def _ask(self) -> str | None:
        try:
            await self._check_sessions()
            async with self._pool.connection() as connection:
                await check_schema(connection)
                if not self._dev and not self._dev_key_looked_for:
                    await refuse_dev_key(connection)
        except (DevKeyOutsideDev, SessionsShared):
            raise
        except (Transient, Misconfigured) as error:
            return error.message
        self.database_was_ready = self._dev_key_looked_for = True
        return None
