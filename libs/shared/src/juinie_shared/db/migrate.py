"""Bring the schema up (or down). A one-shot step that several may start at once: one works, the others wait for it."""

import asyncio
from collections.abc import Callable
from typing import Any

import asyncpg
from alembic import command
from alembic.config import Config
from sqlalchemy import Connection, text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.pool import NullPool

from juinie_shared.db.pool import driver_errors, plain_url
from juinie_shared.db.schema import MIGRATIONS
from juinie_shared.domain.errors import DatabaseBusy

type Step = Callable[[Config], None]

_LOCK = 0x6A75_696E_6965
"""Advisory lock that a migrator's transaction holds ("juinie")."""


async def migrate(database_url: str, revision: str = "head", wait_seconds: float = 60.0) -> None:
    """Upgrade to `revision`, in one transaction.

    Raises:
        DatabaseAway: Postgres does not answer.
        DatabaseBusy: another migrator, or somebody's table lock, did not let go within `wait_seconds`.
    """
    await _run(database_url, lambda config: command.upgrade(config, revision), wait_seconds)


async def downgrade(database_url: str, revision: str, wait_seconds: float = 60.0) -> None:
    """Downgrade to `revision` (`base`: nothing is left). As `migrate`."""
    await _run(database_url, lambda config: command.downgrade(config, revision), wait_seconds)


async def _run(database_url: str, step: Step, wait_seconds: float) -> None:
    scheme, _, rest = plain_url(database_url).partition("://")
    del scheme  # libpq takes postgres:// too, SQLAlchemy does not
    engine = create_async_engine(
        f"postgresql+asyncpg://{rest}", poolclass=NullPool, connect_args={"timeout": 5}
    )
    try:
        async with asyncio.timeout(wait_seconds):
            with driver_errors():
                while not await _try(engine, step):
                    await asyncio.sleep(0.5)
    except TimeoutError as error:
        message = (
            f"Another migration, or a lock on a table, did not let go within {wait_seconds:g} s. Try again."
        )
        raise DatabaseBusy(message) from error
    finally:
        await engine.dispose()


async def _try(engine: Any, step: Step) -> bool:
    """One try: False when another migrator works, or a lock that the step needs is not free within 3 s."""
    async with engine.connect() as connection:
        try:
            async with connection.begin():
                if not await connection.scalar(
                    text("SELECT pg_try_advisory_xact_lock(:lock)"), {"lock": _LOCK}
                ):
                    return False
                # Waiting longer for a table lock would queue all traffic on that table behind us.
                await connection.execute(text("SET LOCAL lock_timeout = '3s'"))
                await connection.run_sync(_apply, step)
        except DBAPIError as error:
            if isinstance(error.orig and error.orig.__cause__, asyncpg.LockNotAvailableError):
                return False
            raise
        return True


def alembic_config() -> Config:
    """Where the migrations are. Built here: there is no alembic.ini, and no database named in a file."""
    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS))
    config.set_main_option("path_separator", "os")
    return config


def _apply(connection: Connection, step: Step) -> None:
    config = alembic_config()
    config.attributes["connection"] = connection
    step(config)
