"""What the server undid for the sake of another session (a deadlock, a serialization failure) is done again, unseen.

Such a failure says nothing of the statement and has left nothing behind. Our own statements give no cause for it; what
users put on the same database may: a trigger, a logical copy, a stricter isolation level as its default.
"""

import time
from collections.abc import Awaitable, Callable
from typing import Any

import asyncpg

from juinie_shared.db.line import Line

REPEATS = 3
SECONDS = 1.5
"""Not again once so much time has passed: a deadlock alone takes a second to be found."""

_UNDONE = (asyncpg.DeadlockDetectedError, asyncpg.SerializationError)
_Connection: Any = asyncpg.Connection


async def again[T](act: Callable[[], Awaitable[T]]) -> T:
    """Do it, and up to `REPEATS` times more while the server undoes it. It has to be one statement, or a whole transaction."""
    until = time.monotonic() + SECONDS
    for _ in range(REPEATS):
        try:
            return await act()
        except _UNDONE:
            if time.monotonic() > until:
                raise
    return await act()


class Session(Line):
    """An asyncpg connection on which a statement of its own, outside a transaction, is done again."""

    async def fetch(self, *args: Any, **options: Any) -> Any:
        return await self._again(_Connection.fetch, args, options)

    async def fetchrow(self, *args: Any, **options: Any) -> Any:
        return await self._again(_Connection.fetchrow, args, options)

    async def fetchval(self, *args: Any, **options: Any) -> Any:
        return await self._again(_Connection.fetchval, args, options)

    async def execute(self, *args: Any, **options: Any) -> Any:
        return await self._again(_Connection.execute, args, options)

    async def _again(self, method: Any, args: tuple[Any, ...], options: dict[str, Any]) -> Any:
        try:
            if self.is_in_transaction():
                return await method(self, *args, **options)
            return await again(lambda: method(self, *args, **options))
        except asyncpg.ConnectionDoesNotExistError as error:
            self.lost(error)
            raise
