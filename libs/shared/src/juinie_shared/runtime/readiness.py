"""Whether a service can serve: looked at in the background, so that a probe is answered at once whatever hangs."""

import asyncio
from collections.abc import Awaitable, Callable

from juinie_shared.domain.errors import SchemaBehind, Transient

EVERY_SECONDS = 1.0
EVERY_SECONDS_UNTIL_READY = 0.1


async def _nothing() -> list[str]:
    return []


class Readiness:
    """`watch()` it in a task. What is missing is a list of lines, one for each thing; empty when the service is ready."""

    def __init__(
        self,
        check_database: Callable[[], Awaitable[None]],
        report: Callable[[list[str]], None],
        look_further: Callable[[], Awaitable[list[str]]] = _nothing,
    ) -> None:
        """`report` gets what is missing whenever that changes. `look_further` says what is missing besides the database."""
        self._check_database, self._report, self._look_further = check_database, report, look_further
        self._missing = ["Nothing has been looked at yet."]
        self._draining = False
        self.database_seen = asyncio.Event()
        """Set once the database has answered with the schema that this code needs."""

    async def missing(self) -> list[str]:
        return ["This server is stopping."] if self._draining else self._missing

    def drain(self) -> None:
        """Not ready from now on."""
        self._draining = True

    async def watch(self) -> None:
        """Look for ever.

        Raises:
            Misconfigured: what no waiting mends; a schema that is behind is waited for.
        """
        while True:
            missing = await self._look()
            if missing != self._missing:
                self._missing = missing
                self._report(missing)
            await asyncio.sleep(EVERY_SECONDS_UNTIL_READY if missing else EVERY_SECONDS)

    async def _look(self) -> list[str]:
        database, others = await asyncio.gather(self._look_at_database(), self._look_further())
        return [*database, *others]

    async def _look_at_database(self) -> list[str]:
        try:
            await self._check_database()
        except (Transient, SchemaBehind) as waiting:
            return [waiting.message]
        self.database_seen.set()
        return []
