"""Whether this api can serve: looked at in the background, so that a probe is answered at once whatever hangs."""

import asyncio
from collections.abc import Awaitable, Callable

from juinie_shared.db.keys import refuse_dev_key
from juinie_shared.db.pool import Pool
from juinie_shared.db.schema import check_schema
from juinie_shared.domain.errors import JuinieError, SchemaBehind, Transient

LOOK_SECONDS = 1.0


class Health:
    """`watch()` it in a task. `missing()` is the readiness of `runtime/probes.py`."""

    def __init__(
        self,
        pool: Pool,
        check_sessions: Callable[[], Awaitable[None]],
        *,
        dev: bool,
        report: Callable[[JuinieError | None], None],
    ) -> None:
        self._pool, self._check_sessions, self._dev, self._report = pool, check_sessions, dev, report
        self._waiting_for: str | None = "The database was not asked yet."
        self._draining = False

    async def missing(self) -> list[str]:
        if self._draining:
            return ["This server is stopping."]
        return [self._waiting_for] if self._waiting_for else []

    def drain(self) -> None:
        self._draining = True

    async def watch(self) -> None:
        """Look for ever.

        Raises:
            DevKeyOutsideDev: the development key is in a database that is not for development.
            SessionsShared: a pooler stands before the database, in a mode that we cannot work with.
        """
        dev_key_checked = self._dev
        while True:
            try:
                await self._check_sessions()
                async with self._pool.connection() as connection:
                    await check_schema(connection)
                    if not dev_key_checked:
                        await refuse_dev_key(connection)
                        dev_key_checked = True
                self._is(None)
            except (Transient, SchemaBehind) as error:
                self._is(error)
            await asyncio.sleep(LOOK_SECONDS)

    def _is(self, error: JuinieError | None) -> None:
        """Remember it, and tell when it changed."""
        message = error.message if error else None
        if message != self._waiting_for:
            self._waiting_for = message
            self._report(error)
