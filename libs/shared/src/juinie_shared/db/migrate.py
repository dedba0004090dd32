"""Bring the schema up (or down). A one-shot step that several may start at once: one works, the others wait for it."""

import asyncio
import time
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

import asyncpg
from alembic import command
from alembic.config import Config
from sqlalchemy import Connection, text
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine
from sqlalchemy.pool import NullPool

from juinie_shared.db.indexes import LOCK_TIMEOUT
from juinie_shared.db.pool import driver_errors, plain_url
from juinie_shared.db.schema import MIGRATIONS
from juinie_shared.domain.errors import DatabaseBusy

_asyncpg: Any = asyncpg

type Step = Callable[[Config], None]

_LOCK = 0x6A75_696E_6965
"""Advisory lock that a migrator's session holds ("juinie"); it goes with the session, however that ends."""
_TAKE = text("SELECT pg_try_advisory_lock(:lock)").bindparams(lock=_LOCK)
_LET_GO = text("SELECT pg_advisory_unlock(:lock)").bindparams(lock=_LOCK)


async def migrate(database_url: str, revision: str = "head", wait_seconds: float = 60.0) -> None:
    """Upgrade to `revision`, each revision in a transaction of its own.

    An index on a large table commits what came before it in its revision (`db/indexes.py`). A migrator that is ended
    leaves a revision done, or one that the next migrator begins again.

    Raises:
        DatabaseAway: Postgres does not answer.
        DatabaseBusy: another migrator, or somebody's table lock, did not let go within `wait_seconds`.
    """
    await _run(
        database_url, lambda config: command.upgrade(_each_alone(config, True), revision), wait_seconds
    )


async def downgrade(database_url: str, revision: str, wait_seconds: float = 60.0) -> None:
    """Downgrade to `revision` (`base`: nothing is left), in one transaction. Raises as `migrate` does."""
    await _run(
        database_url, lambda config: command.downgrade(_each_alone(config, False), revision), wait_seconds
    )


async def _run(database_url: str, step: Step, wait_seconds: float) -> None:
    # asyncpg reads the URL, as it does in the services: SQLAlchemy would take what libpq's says, such as `sslmode`, for arguments.
    connect = partial(_asyncpg.connect, plain_url(database_url), timeout=5)
    engine = create_async_engine("postgresql+asyncpg://", poolclass=NullPool, async_creator=connect)
    try:
        with driver_errors():
            await _try_for(wait_seconds, engine, step)
    finally:
        await engine.dispose()


async def _try_for(wait_seconds: float, engine: AsyncEngine, step: Step) -> None:
    """Time is for waiting only: work that has begun takes as long as it takes."""
    deadline = time.monotonic() + wait_seconds
    while not await _try(engine, step):
        if time.monotonic() > deadline:
            message = f"Another migration, or a lock on a table, did not let go within {wait_seconds:g} s. Try again."
            raise DatabaseBusy(message)
        await asyncio.sleep(0.5)


async def _try(engine: AsyncEngine, step: Step) -> bool:
    """One try: False when another migrator works, or a lock that the step needs was not free in time."""
    async with _session(engine) as connection:
        try:
            if not await connection.scalar(_TAKE):
                return False
            await connection.execute(text(LOCK_TIMEOUT))
            await connection.commit()
            await connection.run_sync(_apply, step)
            await connection.execute(_LET_GO)
        except SQLAlchemyError as error:
            said = _driver_error(error)
            if isinstance(said, (asyncpg.LockNotAvailableError, asyncpg.DeadlockDetectedError)):
                return False
            raise said or error from None
        return True


@asynccontextmanager
async def _session(engine: AsyncEngine) -> AsyncGenerator[AsyncConnection]:
    """A connection that is gone afterwards, and its lock with it. One that broke SQLAlchemy would leave open."""
    connection = await engine.connect().start()
    driver: Any = (await connection.get_raw_connection()).driver_connection
    try:
        yield connection
    finally:
        await connection.close()
        driver.terminate()


def _driver_error(error: BaseException | None) -> BaseException | None:
    """What the driver said, below what SQLAlchemy and Alembic made of it."""
    while error and not isinstance(error, (asyncpg.PostgresError, asyncpg.InterfaceError)):
        error = error.__cause__ or error.__context__
    return error


def _each_alone(config: Config, each_alone: bool) -> Config:
    """Whether each revision has a transaction of its own, or all of them have one."""
    config.attributes["each_alone"] = each_alone
    return config


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
