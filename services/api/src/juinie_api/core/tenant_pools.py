"""The database's connections, shared out among tenants: one whose requests are slow or locked never has them all.

A tenant holds at most three quarters of the pool, and never the last connection of several. Where connections are scarce, the next free one goes to the tenant that
holds the fewest, and within a tenant to who came first.
"""

import asyncio
import math
from collections import Counter, deque
from collections.abc import AsyncGenerator, Generator
from contextlib import asynccontextmanager, contextmanager
from typing import override

from juinie_api.core import patience
from juinie_shared.db.pool import Connection, Pool
from juinie_shared.domain.errors import DatabaseBusy
from juinie_shared.domain.ids import TenantId

WAIT_SECONDS = 1.5
"""For a connection, where nothing else was waited for before."""


class Shares:
    """Who holds how many of `size` connections. Nothing here waits but `turn`."""

    def __init__(self, size: int) -> None:
        self._free = size
        self._most = max(1, size - max(1, size // 4))
        self._held: Counter[TenantId] = Counter()
        self._waiting: dict[TenantId, deque[asyncio.Future[None]]] = {}

    @asynccontextmanager
    async def turn(self, tenant_id: TenantId, wait_seconds: float = WAIT_SECONDS) -> AsyncGenerator[None]:
        """
        Raises:
            DatabaseBusy: the tenant's turn did not come in time.
        """
        turn = asyncio.get_running_loop().create_future()
        self._waiting.setdefault(tenant_id, deque()).append(turn)
        self._hand_on()
        try:
            await _come(turn, wait_seconds)
            yield
        finally:
            self._leave(tenant_id, turn)

    def _hand_on(self) -> None:
        """Give what is free to those whose turn it is."""
        while self._free and (able := [t for t in self._waiting if self._held[t] < self._most]):
            tenant_id = min(able, key=self._held.__getitem__)
            self._pop(tenant_id).set_result(None)
            self._free -= 1
            self._held[tenant_id] += 1

    def _pop(self, tenant_id: TenantId) -> asyncio.Future[None]:
        turns = self._waiting[tenant_id]
        turn = turns.popleft()
        if not turns:
            del self._waiting[tenant_id]
        return turn

    def _leave(self, tenant_id: TenantId, turn: asyncio.Future[None]) -> None:
        """Whoever had a turn gives it back; whoever still waits, waits no more."""
        if not turn.done():
            turns = self._waiting[tenant_id]
            turns.remove(turn)
            if not turns:
                del self._waiting[tenant_id]
            return
        self._free += 1
        self._held[tenant_id] -= 1
        if not self._held[tenant_id]:
            del self._held[tenant_id]
        self._hand_on()


async def _come(turn: asyncio.Future[None], wait_seconds: float) -> None:
    try:
        async with asyncio.timeout(wait_seconds):
            await asyncio.shield(turn)
    except TimeoutError as error:
        raise DatabaseBusy from error


class TenantPools:
    """One pool, seen by each tenant: `of(tenant_id)` is used as a pool of its own."""

    def __init__(self, pool: Pool, size: int) -> None:
        self._pool, self._shares = pool, Shares(size)

    def of(self, tenant_id: TenantId, wait_seconds: float = WAIT_SECONDS) -> Pool:
        """The pool as this tenant sees it. Its `connection()` waits so long for the tenant's turn."""
        return _TenantPool(self._pool, self._shares, tenant_id, wait_seconds)


class _TenantPool(Pool):
    """Lends the shared pool's connections in the tenant's turn, and for no longer than the request has patience."""

    def __init__(self, shared: Pool, shares: Shares, tenant_id: TenantId, wait_seconds: float) -> None:
        self._shared, self._shares, self._tenant_id = shared, shares, tenant_id
        self._wait_seconds = wait_seconds

    @asynccontextmanager
    @override
    async def connection(self) -> AsyncGenerator[Connection]:
        wait_seconds = min(self._wait_seconds, patience.seconds_for_turns())
        async with self._shares.turn(self._tenant_id, wait_seconds):
            if patience.seconds_left() < patience.ACQUIRE_SECONDS:
                raise DatabaseBusy
            async with self._shared.connection() as lent:
                with _cut_off(lent, patience.seconds_left()):
                    yield lent


@contextmanager
def _cut_off(lent: Connection, seconds: float) -> Generator[None]:
    """A connection that is needed for longer is closed: whoever waits for its answer has its error at once, and gives it back at once."""
    if seconds == math.inf:
        yield
        return
    timer = asyncio.get_running_loop().call_later(seconds, lent.terminate)
    try:
        yield
    except (
        TimeoutError
    ):  # the server is silent for longer than its own limit: it would not say either that it has given up
        lent.terminate()
        raise
    finally:
        timer.cancel()
