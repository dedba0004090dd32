"""A Postgres that has no connection left for a service, while the rest of the session still has.

The service gets a role of its own. When the server is `full`, that role may have no connection, and those it had are
gone: the server refuses it with the same SQLSTATE (53300) as when `max_connections` are taken.
"""

import os
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from itertools import count
from urllib.parse import urlsplit, urlunsplit

from juinie_shared.db.pool import Connection, connect

_PASSWORD = "crowded"  # noqa: S105 - of a role that lives as long as one test
_numbers = count(1)

_GRANTS = (
    "ALL ON SCHEMA public",
    "ALL ON ALL TABLES IN SCHEMA public",
    "ALL ON ALL SEQUENCES IN SCHEMA public",
)
_TERMINATE = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = $1"


class CrowdedServer:
    """`url` is the service's way to its database."""

    def __init__(self, admin: Connection, role: str, database_url: str) -> None:
        self._admin, self._role = admin, role
        parts = urlsplit(database_url)
        self.url = urlunsplit(
            parts._replace(netloc=f"{role}:{_PASSWORD}@{parts.hostname}:{parts.port or 5432}")
        )

    async def full(self) -> None:
        """No connection for the service from now on."""
        await self._admin.execute(f"ALTER ROLE {self._role} CONNECTION LIMIT 0")
        await self._admin.execute(_TERMINATE, self._role)

    async def free(self) -> None:
        """As many as it likes."""
        await self._admin.execute(f"ALTER ROLE {self._role} CONNECTION LIMIT -1")


@asynccontextmanager
async def crowded_server(database_url: str) -> AsyncGenerator[CrowdedServer]:
    """A role for this database, gone at the end."""
    role = f"juinie_crowded_{os.getpid()}_{next(_numbers)}"
    admin = await connect(database_url, "juinie-testkit")
    await admin.execute(f"CREATE ROLE {role} LOGIN PASSWORD '{_PASSWORD}'")
    try:
        for grant in _GRANTS:
            await admin.execute(f"GRANT {grant} TO {role}")
        yield CrowdedServer(admin, role, database_url)
    finally:
        await admin.execute(_TERMINATE, role)
        await admin.execute(f"DROP OWNED BY {role}")
        await admin.execute(f"DROP ROLE {role}")
        await admin.close()
