"""Who calls, remembered for a moment: one look at the database serves a key for at most 30 s.

So a revoked key is refused within 30 s everywhere, well below the 60 s that are promised. Anybody can send keys that nobody
has: few connections are ever with those, and keys that were good before do not wait behind them.

No secret is compared byte by byte here: a key is found by its hash (Python's, which is keyed and random in each process,
and then SHA-256 in the database), so the time that a wrong one takes says nothing of how much of it is right.
"""

import asyncio
import time
from collections import Counter, OrderedDict
from collections.abc import AsyncGenerator, Awaitable, Callable, Collection
from contextlib import AsyncExitStack, asynccontextmanager
from uuid import UUID

from juinie_shared.db.keys import Principal, find_key, find_key_by_id, hash_key
from juinie_shared.db.pool import Connection, Pool
from juinie_shared.domain.errors import DatabaseBusy, NotAuthenticated
from juinie_shared.domain.ids import KeyId

REMEMBER_SECONDS = 30.0
FORGET_SECONDS = 3600.0
"""A key that was good lately is known for so long after it is believed no more: it is asked about apart from the unknown ones."""
REMEMBER_KEYS = 10_000
LONGEST_KEY = 200
STRANGERS_AT_ONCE = 2
"""Questions about keys that are not known; each has a connection of those that all tenants share."""
KNOWN_AT_ONCE = 1
"""Questions about keys that were good when they were last asked about."""
TURN_SECONDS = 1.6
"""How long a request waits while others ask, before it gives up as if no connection were free."""

type _Known[K] = OrderedDict[K, tuple[float, Principal]]
"""By what: until when it is remembered, and who it is."""
type _Ask = Callable[[Connection], Awaitable[Principal | None]]


class KeyRing:
    """Answers for API keys. Unknown keys are not remembered: one made a moment ago works at once."""

    def __init__(self, pool: Pool, remember_seconds: float = REMEMBER_SECONDS) -> None:
        self._pool = pool
        self._remember_seconds = remember_seconds
        self._known: _Known[bytes] = OrderedDict()
        self._by_id: _Known[UUID] = OrderedDict()
        self._asking = _Turns()
        self._strangers = asyncio.Semaphore(STRANGERS_AT_ONCE)
        self._regulars = asyncio.Semaphore(KNOWN_AT_ONCE)

    async def principal(self, key: str) -> Principal:
        """Who shows `key`.

        Raises:
            NotAuthenticated: nobody. The same for unknown, revoked, expired and malformed keys.
            Transient: the database cannot be asked.
        """
        if not key or len(key) > LONGEST_KEY or not key.isascii():
            raise NotAuthenticated
        # No key's text is kept, or compared: how long that takes would tell something of it.
        return await self._find(self._known, hash_key(key), lambda connection: find_key(connection, key))

    def forget(self, key_ids: Collection[KeyId]) -> None:
        """These have been found to be valid no more: whoever comes with one is asked about in the database."""
        for text in [text for text, (_, principal) in self._known.items() if principal.key_id in key_ids]:
            del self._known[text]
        for key_id in key_ids:
            self._by_id.pop(key_id, None)

    async def principal_of(self, key_id: KeyId) -> Principal:
        """Who holds the key behind a stream token.

        Raises:
            NotAuthenticated: it is revoked or expired.
            Transient: the database cannot be asked.
        """
        return await self._find(self._by_id, key_id, lambda connection: find_key_by_id(connection, key_id))

    async def _find[K](self, known: _Known[K], key: K, ask: _Ask) -> Principal:
        if entry := _remembered(known, key):
            return entry
        async with self._asking.turn(key, self._regulars if key in known else self._strangers):
            if entry := _remembered(known, key):  # who asked before us
                return entry
            now = time.monotonic()
            async with self._pool.connection() as connection:
                principal = await ask(connection)
            if principal is None:
                known.pop(key, None)
                raise NotAuthenticated
            _remember(known, key, (now + self._remember_seconds, principal))
            return principal


class _Turns:
    """One question at a time about each key: a thousand requests that come with it at once take one connection, and
    one place of the `room` that all of them share."""

    def __init__(self) -> None:
        self._locks: dict[object, asyncio.Lock] = {}
        self._users: Counter[object] = Counter()

    @asynccontextmanager
    async def turn(self, about: object, room: asyncio.Semaphore) -> AsyncGenerator[None]:
        lock = self._locks.setdefault(about, asyncio.Lock())
        self._users[about] += 1
        try:
            async with AsyncExitStack() as taken:
                try:
                    async with asyncio.timeout(TURN_SECONDS):
                        await taken.enter_async_context(lock)
                        await taken.enter_async_context(room)
                except TimeoutError as error:
                    raise DatabaseBusy from error
                yield
        finally:
            self._users[about] -= 1
            if not self._users[about]:
                del self._locks[about], self._users[about]


def _remembered[K](known: _Known[K], key: K) -> Principal | None:
    entry = known.get(key)
    return entry[1] if entry and entry[0] > time.monotonic() else None


def _remember[K](known: _Known[K], key: K, entry: tuple[float, Principal]) -> None:
    """Keep it behind the others; those in front that nobody has shown for `FORGET_SECONDS` go."""
    known[key] = entry
    known.move_to_end(key)
    forget_before = time.monotonic() - FORGET_SECONDS
    while known and (len(known) > REMEMBER_KEYS or next(iter(known.values()))[0] <= forget_before):
        known.popitem(last=False)
