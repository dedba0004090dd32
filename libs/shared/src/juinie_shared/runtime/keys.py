"""Who calls, remembered for a moment: one look at the database serves a key for at most 30 s.

So a revoked key is refused within 30 s everywhere, well below the 60 s that are promised.

No secret is compared byte by byte here: a key is found by its hash (Python's, which is keyed and random in each process,
and then SHA-256 in the database), so the time that a wrong one takes says nothing of how much of it is right.
"""

import time
from collections import OrderedDict
from collections.abc import Collection
from uuid import UUID

from juinie_shared.db.keys import Principal, find_key, find_key_by_id, hash_key
from juinie_shared.db.pool import Pool
from juinie_shared.domain.errors import NotAuthenticated
from juinie_shared.domain.ids import KeyId

REMEMBER_SECONDS = 30.0
REMEMBER_KEYS = 10_000
LONGEST_KEY = 200


class KeyRing:
    """Answers for API keys. Unknown keys are not remembered: one made a moment ago works at once."""

    def __init__(self, pool: Pool, remember_seconds: float = REMEMBER_SECONDS) -> None:
        self._pool = pool
        self._remember_seconds = remember_seconds
        self._known: OrderedDict[bytes, tuple[float, Principal]] = OrderedDict()
        self._by_id: OrderedDict[UUID, tuple[float, Principal]] = OrderedDict()

    async def principal(self, key: str) -> Principal:
        """Who shows `key`.

        Raises:
            NotAuthenticated: nobody. The same for unknown, revoked, expired and malformed keys.
            Transient: the database cannot be asked.
        """
        if not key or len(key) > LONGEST_KEY or not key.isascii():
            raise NotAuthenticated
        # No key's text is kept, or compared: how long that takes would tell something of it.
        digest = hash_key(key)
        now = time.monotonic()
        if (entry := self._known.get(digest)) and entry[0] > now:
            return entry[1]
        async with self._pool.connection() as connection:
            principal = await find_key(connection, key)
        if principal is None:
            self._known.pop(digest, None)
            raise NotAuthenticated
        _remember(self._known, digest, (now + self._remember_seconds, principal))
        return principal

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
        now = time.monotonic()
        if (entry := self._by_id.get(key_id)) and entry[0] > now:
            return entry[1]
        async with self._pool.connection() as connection:
            principal = await find_key_by_id(connection, key_id)
        if principal is None:
            self._by_id.pop(key_id, None)
            raise NotAuthenticated
        _remember(self._by_id, key_id, (now + self._remember_seconds, principal))
        return principal


def _remember[K, V](known: OrderedDict[K, V], key: K, value: V) -> None:
    known[key] = value
    known.move_to_end(key)
    if len(known) > REMEMBER_KEYS:
        known.popitem(last=False)
