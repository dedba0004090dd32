"""Whether the database is one that this code can work on."""

from collections.abc import Awaitable, Callable

from juinie_shared.db.keys import refuse_dev_key
from juinie_shared.db.pool import Pool
from juinie_shared.db.schema import check_schema


class DatabaseCheck:
    """Looks at the schema each time, and outside dev for the development key until once there was none: one that somebody
    makes later must not end what runs.
    """

    def __init__(self, pool: Pool, check_sessions: Callable[[], Awaitable[None]], *, dev: bool) -> None:
        self._pool, self._check_sessions = pool, check_sessions
        self._may_have_dev_key = not dev

    async def __call__(self) -> None:
        """Look once.

        Raises:
            SchemaBehind: this code needs a newer schema.
            DevKeyOutsideDev: the database holds the key that the README prints, and this is no place for it.
            SessionsShared: a pooler stands before the database, in a mode that we cannot work with.
            Transient: the database cannot be asked.
        """
        await self._check_sessions()
        async with self._pool.connection() as connection:
            await check_schema(connection)
            if self._may_have_dev_key:
                await refuse_dev_key(connection)
        self._may_have_dev_key = False
