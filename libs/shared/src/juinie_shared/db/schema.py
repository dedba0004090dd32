"""Which schema this code needs, and whether the database has it. Services never migrate: they say so and wait."""

from functools import cache
from pathlib import Path

import asyncpg

from juinie_shared.db.pool import Connection
from juinie_shared.domain.errors import SchemaBehind

MIGRATIONS = Path(__file__).parent / "migrations"


@cache
def known_revisions() -> tuple[str, ...]:
    """All revisions that this code knows, the newest first: migrations are one line, and files are named in its order.

    Read from the names, so that a service that never migrates need not load Alembic and SQLAlchemy to start.
    """
    names = sorted((path.stem for path in (MIGRATIONS / "versions").glob("[0-9]*.py")), reverse=True)
    return tuple(name.partition("_")[0] for name in names)


async def check_schema(connection: Connection) -> None:
    """See that the schema is at least what this code needs. One that this code does not know is a newer one: fine.

    Raises:
        SchemaBehind: there is none, or an older one.
    """
    wanted, found = known_revisions()[0], await found_revision(connection)
    if found is None or (found != wanted and found in known_revisions()):
        raise SchemaBehind(found, wanted)


async def found_revision(connection: Connection) -> str | None:
    """The schema's revision; None where there is none yet."""
    try:
        return await connection.fetchval("SELECT version_num FROM alembic_version")
    except asyncpg.UndefinedTableError:
        return None
