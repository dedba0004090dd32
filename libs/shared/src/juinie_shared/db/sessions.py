"""Whether each connection has a session of its own. Behind a pooler in transaction mode it has not, and nothing says so.

LISTEN is what tells: a session that rests hears a notification, and a connection without a session never does, however
many server connections the pooler has and whichever it lends.
"""

import asyncio
import secrets
from contextlib import suppress

from juinie_shared.db.pool import Connection, PoolLimits, connect, driver_errors
from juinie_shared.domain.errors import SessionLost, SessionsShared

HEAR_SECONDS = 2.0
"""How long a notification may take to a connection that rests. It takes a millisecond; what is slower is asked again."""

ANSWER_SECONDS = 2 * HEAR_SECONDS
"""Behind which the database is away, whatever hangs."""


class SessionCheck:
    """Sees to it once, at the first time that the database answers."""

    def __init__(self, database_url: str, application: str, limits: PoolLimits | None = None) -> None:
        self._database_url, self._application, self._limits = database_url, application, limits
        self._passed = False

    async def __call__(self) -> None:
        """See `require_sessions`."""
        if not self._passed:
            await require_sessions(self._database_url, self._application, self._limits)
            self._passed = True


async def require_sessions(database_url: str, application: str, limits: PoolLimits | None = None) -> None:
    """See that connections to this URL have sessions of their own.

    Raises:
        SessionsShared: they have not.
        Transient: the database does not answer, or has no two connections free.
    """
    listener = await connect(database_url, application, limits)
    try:
        caller = await connect(database_url, application, limits)
        try:
            with driver_errors():
                async with asyncio.timeout(ANSWER_SECONDS):
                    heard = await can_hear(listener, caller)
        except SessionLost as error:
            raise SessionsShared from error
        finally:
            caller.terminate()
    finally:
        listener.terminate()
    if not heard:
        raise SessionsShared


async def can_hear(listener: Connection, caller: Connection, within_seconds: float = HEAR_SECONDS) -> bool:
    """Whether what `caller` sends reaches `listener`, which does nothing meanwhile.

    When nothing came, `listener` asks for something: Postgres sends what there is to hear before it answers (PostgreSQL,
    NOTIFY), so that a server that is merely slow is never taken for a pooler.
    """
    channel = f"juinie_check_{secrets.token_hex(8)}"
    heard = asyncio.Event()
    await listener.add_listener(channel, lambda *_: heard.set())
    await caller.execute(f"NOTIFY {channel}")
    with suppress(TimeoutError):
        async with asyncio.timeout(within_seconds):
            await heard.wait()
    if not heard.is_set():
        await listener.fetchval("SELECT 1")
    return heard.is_set()
