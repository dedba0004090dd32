"""The asyncpg pool of a service: bounded in size and in every wait, and its driver errors turned into ours.

A service with a pool starts, and goes on, while Postgres is away: nothing connects before the first statement.
"""

import asyncio
from collections.abc import AsyncGenerator, Callable, Generator, Iterable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from types import MappingProxyType
from typing import Any, Protocol

import asyncpg

from juinie_shared.db.again import Session
from juinie_shared.db.line import cut_resting, probe
from juinie_shared.domain.errors import (
    DatabaseAway,
    DatabaseBusy,
    DatabaseRefuses,
    NoConnection,
    RunLocked,
    SchemaAway,
    SessionLost,
    Transient,
)

_asyncpg: Any = asyncpg

type Row = Mapping[str, Any]
"""A row: values by column name."""


class Connection(Protocol):
    """The part of an asyncpg connection that Juinie uses. asyncpg itself has no types."""

    async def fetch(self, query: str, *args: object, timeout: float | None = None) -> list[Row]: ...
    async def fetchrow(self, query: str, *args: object) -> Row | None: ...
    async def fetchval(self, query: str, *args: object) -> Any: ...
    async def execute(self, query: str, *args: object) -> str: ...
    async def executemany(self, command: str, args: Iterable[Sequence[object]]) -> None: ...
    async def add_listener(self, channel: str, callback: Callable[..., None]) -> None: ...
    def add_termination_listener(self, callback: Callable[..., None]) -> None: ...
    def transaction(self) -> AbstractAsyncContextManager[object]: ...
    def is_closed(self) -> bool: ...
    async def close(self, *, timeout: float | None = None) -> None: ...
    def terminate(self) -> None: ...


@dataclass(frozen=True, slots=True)
class PoolLimits:
    """How many connections, and how long anything may take (seconds). The api allows less: its 503 comes within 5 s."""

    size: int = 8
    acquire_seconds: float = 2.0
    connect_seconds: float = 2.0
    statement_seconds: float = 4.0
    lock_seconds: float = 2.0
    release_seconds: float = 2.0
    """For giving one back whose statement was given up; then it is cut."""
    acquire_within: Callable[[], float] | None = None
    """How long one may be waited for now, where that differs from one time to the next."""

    def seconds_to_acquire(self) -> float:
        return self.acquire_seconds if self.acquire_within is None else self.acquire_within()


class Pool:
    """A bounded pool. `connection()` lends a connection, `transaction()` one inside a transaction that it commits."""

    def __init__(self, pool: Any, limits: PoolLimits) -> None:
        self._pool = pool
        self._limits = limits

    @asynccontextmanager
    async def connection(self) -> AsyncGenerator[Connection]:
        """Lend a connection.

        Raises:
            DatabaseAway: Postgres does not answer.
            NoConnection: none became free, or was made, in time.
            DatabaseBusy: a statement took too long and was given up.
            RunLocked: a statement waited too long for a row lock.
        """
        with driver_errors():
            try:
                lent = await self._pool.acquire(timeout=self._limits.seconds_to_acquire())
            except TimeoutError as error:
                raise NoConnection from error
            try:
                yield lent
            finally:
                await self._pool.release(lent, timeout=self._limits.release_seconds)

    @asynccontextmanager
    async def transaction(self) -> AsyncGenerator[Connection]:
        async with self.connection() as lent, lent.transaction():
            yield lent

    async def warm(self, connections: int) -> None:
        """Have so many connections, as far as they can be had in the time that one may take: whoever comes first is not to wait for them."""
        held = list[Any]()
        with suppress(Transient), driver_errors():
            try:
                async with asyncio.timeout(self._limits.connect_seconds):
                    for _ in range(connections):
                        held.append(await self._pool.acquire())
            finally:
                for lent in held:
                    await self._pool.release(lent)

    async def close(self, within_seconds: float = 2.0) -> None:
        """Close all connections; what does not end in time is cut."""
        try:
            async with asyncio.timeout(within_seconds):
                await self._pool.close()
        except TimeoutError:
            self._pool.terminate()


async def open_pool(
    database_url: str, application: str, limits: PoolLimits | None = None, **settings: str
) -> Pool:
    """A pool that has not connected yet. `database_url` is a libpq URL (`postgresql://…`). `settings`: of Postgres, which
    each of its sessions sets besides its limits."""
    limits = limits or PoolLimits()

    async def begin_session(session: Session) -> None:
        session.when_dead = partial(cut_resting, pool)
        await _begin_session(session, limits, settings)

    pool = await _asyncpg.create_pool(
        plain_url(database_url),
        min_size=0,
        max_size=limits.size,
        timeout=limits.connect_seconds,
        command_timeout=limits.statement_seconds + 1,
        reset=_keep_session,
        connection_class=Session,
        init=begin_session,
        server_settings={"application_name": application},
    )
    return Pool(pool, limits)


def plain_url(database_url: str) -> str:
    """SQLAlchemy's spelling (`postgresql+asyncpg://`) as libpq's."""
    scheme, separator, rest = database_url.partition("://")
    return f"{scheme.partition('+')[0]}{separator}{rest}"


def session_settings(limits: PoolLimits) -> dict[str, str]:
    """What every session of a service sets: its time limits, and that its server finds out within 30 s when we are gone."""
    return {
        "statement_timeout": str(int(limits.statement_seconds * 1000)),
        "lock_timeout": str(int(limits.lock_seconds * 1000)),
        "idle_in_transaction_session_timeout": "5000",
        "tcp_keepalives_idle": "10",
        "tcp_keepalives_interval": "5",
        "tcp_keepalives_count": "3",
    }


async def _begin_session(
    connection: Any, limits: PoolLimits, settings: Mapping[str, str] = MappingProxyType({})
) -> None:
    """Give a new session its limits. Not as it connects: pgbouncer refuses, or drops, what it does not know there. And have
    the kernel find out within 30 s when its server is gone."""
    probe(connection)
    all_settings = {**session_settings(limits), **settings}
    try:
        await connection.execute(
            "; ".join(f"SET {name} = {value}" for name, value in all_settings.items()),
            timeout=limits.connect_seconds,
        )
    except BaseException:
        connection.terminate()
        raise


async def _keep_session(_connection: Connection) -> None:
    """Our statements leave nothing behind in a session, so returning one costs no round trip."""


_PASSING = {"08", "40", "53", "55", "57", "58", "XX"}
"""Classes of SQLSTATE that say something of the server's state and nothing of our statement (PostgreSQL, appendix A):
connection, rollback, resources, state, operator, system, internal."""


_LOST = {"26000", "42P05"}
"""A prepared statement that is not there, or is there already: another session's."""


_REFUSING = (
    asyncpg.InvalidCatalogNameError, asyncpg.InvalidAuthorizationSpecificationError, asyncpg.InsufficientPrivilegeError,
)  # fmt: skip
_WITHOUT_TABLES = (asyncpg.UndefinedTableError, asyncpg.UndefinedColumnError)
"""These may pass: a database that is just being set up, or restored, has no users, grants or tables yet."""


def _passing(error: asyncpg.PostgresError) -> DatabaseAway | None:
    """What the server said, if it says nothing of our statement."""
    state: str = getattr(error, "sqlstate", None) or ""
    if state in _LOST:
        return SessionLost()
    if isinstance(error, _REFUSING):
        return DatabaseRefuses()
    if isinstance(error, _WITHOUT_TABLES):
        return SchemaAway()
    if state[:2] in _PASSING or isinstance(error, asyncpg.ReadOnlySQLTransactionError):
        return DatabaseAway()
    return None


@contextmanager
def driver_errors() -> Generator[None]:
    """Turn what the driver raises while Postgres is away, busy or locked into our errors. The rest is a fault of ours.

    A task that is cancelled inside ends so, whatever the driver raises then: it waits for the server to give up a
    statement, and when that does not come in time, its error takes the place of the cancellation.
    """
    cancelled_before = _cancellations()
    try:
        with _as_ours():
            yield
    except Exception as error:
        if _cancellations() > cancelled_before:
            raise asyncio.CancelledError from error
        raise


def _cancellations() -> int:
    """How often the task that runs now was asked to end; 0 where none runs."""
    try:
        task = asyncio.current_task()
    except RuntimeError:
        return 0
    return task.cancelling() if task else 0


@contextmanager
def _as_ours() -> Generator[None]:
    try:
        yield
    except (asyncpg.LockNotAvailableError, asyncpg.DeadlockDetectedError) as error:
        raise RunLocked from error
    except (asyncpg.TooManyConnectionsError, asyncpg.QueryCanceledError, asyncpg.OutOfMemoryError) as error:
        raise DatabaseBusy from error
    except asyncpg.PostgresError as error:
        if passing := _passing(error):
            raise passing from error
        raise
    except asyncpg.InternalClientError as error:  # the session was ended by the server between two statements
        raise DatabaseAway from error
    except asyncpg.InterfaceError as error:
        if isinstance(error, ValueError):  # a value that does not fit its parameter: a fault of ours
            raise
        raise DatabaseAway from error
    except (OSError, TimeoutError) as error:
        raise DatabaseAway from error


async def connect(database_url: str, application: str, limits: PoolLimits | None = None) -> Connection:
    """One connection of its own: for LISTEN, and for commands.

    Raises:
        DatabaseAway: Postgres does not answer.
    """
    limits = limits or PoolLimits()
    with driver_errors():
        connection: Connection = await _asyncpg.connect(
            plain_url(database_url),
            timeout=limits.connect_seconds,
            server_settings={"application_name": application},
        )
        await _begin_session(connection, limits)
        return connection
