"""Databases for tests: one migrated template a session, one clone a test.

Names hold the session's name, so that those of a killed session can be told from those in use and dropped.
"""

import re
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from urllib.parse import urlsplit, urlunsplit

import asyncpg

from juinie_shared.db.pool import Connection, PoolLimits, connect
from juinie_testkit.backing.session import CannotHave, is_alive

_SLOW = PoolLimits(connect_seconds=10, statement_seconds=60, lock_seconds=60)
_OURS = re.compile(r"juinie_test_(\d+)_\w+")

_DROP_LATER = "SELECT datname FROM pg_database WHERE datname LIKE 'juinie\\_test\\_%'"


def url_of(server_url: str, database: str) -> str:
    """The server's URL with another database."""
    parts = urlsplit(server_url)
    return urlunsplit(parts._replace(path=f"/{database}"))


async def make_template(server_url: str, session_name: str) -> str:
    """Make the session's template: an empty database with the newest schema. Gives its name."""
    from juinie_shared.db.migrate import (
        migrate,
    )  # takes a second to import, in every pytest process otherwise

    name = f"{session_name}_template"
    async with _admin(server_url) as admin:
        await _drop_leftovers(admin)
        try:
            await admin.execute(f'CREATE DATABASE "{name}"')
        except asyncpg.InsufficientPrivilegeError as error:
            raise CannotHave(
                "The user of TEST_DATABASE_URL may not create databases: ALTER ROLE … CREATEDB."
            ) from error
    await migrate(url_of(server_url, name))
    return name


async def make_empty(server_url: str, name: str) -> str:
    """A database without any schema. Gives its URL."""
    async with _admin(server_url) as admin:
        await admin.execute(f'CREATE DATABASE "{name}"')
    return url_of(server_url, name)


async def clone(server_url: str, template: str, name: str) -> str:
    """A copy of the template. Gives its URL."""
    async with _admin(server_url) as admin:
        await admin.execute(f'CREATE DATABASE "{name}" TEMPLATE "{template}"')
    return url_of(server_url, name)


async def drop(server_url: str, name: str) -> None:
    """Drop a database, whoever is still connected to it."""
    async with _admin(server_url) as admin:
        await admin.execute(f'DROP DATABASE IF EXISTS "{name}" WITH (FORCE)')


async def drop_all_of(server_url: str, session_name: str) -> None:
    """Drop what is left of this session."""
    async with _admin(server_url) as admin:
        for row in await admin.fetch(_DROP_LATER):
            if row["datname"].startswith(f"{session_name}_"):
                await admin.execute(f'DROP DATABASE IF EXISTS "{row["datname"]}" WITH (FORCE)')


async def _drop_leftovers(admin: Connection) -> None:
    for row in await admin.fetch(_DROP_LATER):
        match = _OURS.fullmatch(row["datname"])
        if match and not is_alive(int(match[1])):
            await admin.execute(f'DROP DATABASE IF EXISTS "{row["datname"]}" WITH (FORCE)')


@asynccontextmanager
async def _admin(server_url: str) -> AsyncGenerator[Connection]:
    connection = await connect(server_url, "juinie-testkit", _SLOW)
    try:
        yield connection
    finally:
        await connection.close()
