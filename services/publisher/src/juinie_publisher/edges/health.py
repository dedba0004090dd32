"""What the publisher waits for, looked at in the background, so that a probe is answered at once whatever hangs."""

import asyncio
from collections.abc import Awaitable, Callable

from juinie_publisher.telemetry import Telemetry
from juinie_shared.domain.errors import SchemaBehind, Transient

EVERY_SECONDS = 1.0
EVERY_SECONDS_UNTIL_READY = 0.1
KAFKA_SECONDS = 2.0


class Health:
    """Whether Postgres and Kafka can be reached and the schema is right. Not ready until it was seen."""

    def __init__(
        self,
        check_database: Callable[[], Awaitable[None]],
        is_kafka_reachable: Callable[[float], Awaitable[bool]],
        telemetry: Telemetry,
    ) -> None:
        self._check_database = check_database
        self._is_kafka_reachable = is_kafka_reachable
        self._telemetry = telemetry
        self._missing = ["starting"]
        self.database_seen = asyncio.Event()
        """Set once the database has answered with the schema that this code needs."""

    async def readiness(self) -> list[str]:
        return self._missing

    async def watch(self, stopping: asyncio.Event) -> None:
        """Look every second until `stopping` is set; from then on not ready.

        Raises:
            Misconfigured: what no waiting mends; a schema that is behind is waited for.
        """
        while not stopping.is_set():
            missing = await self._look()
            if missing != self._missing:
                self._telemetry.waiting_for(missing)
            self._missing = missing
            try:
                async with asyncio.timeout(EVERY_SECONDS_UNTIL_READY if missing else EVERY_SECONDS):
                    await stopping.wait()
            except TimeoutError:
                continue
        self._missing = ["stopping"]

    async def _look(self) -> list[str]:
        database, kafka = await asyncio.gather(self._database(), self._is_kafka_reachable(KAFKA_SECONDS))
        return [*database, *([] if kafka else ["Kafka does not answer."])]

    async def _database(self) -> list[str]:
        try:
            await self._check_database()
        except (Transient, SchemaBehind) as waiting:
            return [waiting.message]
        self.database_seen.set()
        return []
