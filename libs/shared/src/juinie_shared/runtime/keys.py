"""Who calls, remembered for a moment: one look at the database serves a key for at most 30 s.

So a revoked key is refused within 30 s everywhere, well below the 60 s that are promised. Anybody can send keys that nobody
has: those that are asked about at once are looked up by one read, and keys that were good before do not wait behind them.

No secret is compared byte by byte here: a key is found by its hash (Python's, which is keyed and random in each process,
and then SHA-256 in the database), so the time that a wrong one takes says nothing of how much of it is right.
"""

import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Collection, Hashable, Sequence
from functools import partial

from juinie_shared.db.keys import Principal, find_keys, find_keys_by_id, hash_key
from juinie_shared.db.pool import Connection, Pool
from juinie_shared.domain.errors import DatabaseBusy, NotAuthenticated
from juinie_shared.domain.ids import KeyId
from juinie_shared.runtime.deadlines import Deadlines
from juinie_shared.runtime.together import Together

REMEMBER_SECONDS = 30.0
FORGET_SECONDS = 3600.0
"""A key that was good lately is known for so long after it is believed no more: it is asked about apart from the unknown ones."""
REMEMBER_KEYS = 10_000
LONGEST_KEY = 200
AT_ONCE = 1
"""Reads under way of unknown keys, of known ones, and of those behind tokens, which nobody makes up: each takes one of the
connections that all tenants share. With two of a kind, a key would be looked up by one while the other is about to remember it."""
MOST_KEYS = 500
"""Looked up by one read. What waits for the next is bounded by the connections of who asks: a hash of 32 bytes for each."""
TURN_SECONDS = 1.6
"""How long a request waits for what is known of its key, before it gives up as if no connection were free."""

type _Known[K] = OrderedDict[K, tuple[float, Principal]]
"""By what: until when it is remembered, and who it is."""
type _Find[K] = Callable[[Connection, Sequence[K]], Awaitable[dict[K, Principal]]]


class KeyRing:
    """Answers for API keys. Unknown keys are not remembered: one made a moment ago works at once."""

    def __init__(self, pool: Pool, remember_seconds: float = REMEMBER_SECONDS) -> None:
        self._pool = pool
        self._remember_seconds = remember_seconds
        self._known: _Known[bytes] = OrderedDict()
        self._by_id: _Known[KeyId] = OrderedDict()
        patience = Deadlines(TURN_SECONDS, late=DatabaseBusy)
        look = partial(self._look, self._known, find_keys)
        look_by_id = partial(self._look, self._by_id, find_keys_by_id)
        self._strangers = Together(look, AT_ONCE, MOST_KEYS, patience)
        self._regulars = Together(look, AT_ONCE, MOST_KEYS, patience)
        self._signed = Together(look_by_id, AT_ONCE, MOST_KEYS, patience)

    async def principal(self, key: str) -> Principal:
        """Who shows `key`.

        Raises:
            NotAuthenticated: nobody. The same for unknown, revoked, expired and malformed keys.
            Transient: the database cannot be asked.
        """
        if not key or len(key) > LONGEST_KEY or not key.isascii():
            raise NotAuthenticated
        # No key's text is kept, or compared: how long that takes would tell something of it.
        hashed = hash_key(key)
        if principal := _remembered(self._known, hashed):
            return principal
        return await _answer(self._regulars if hashed in self._known else self._strangers, hashed)

    async def principal_of(self, key_id: KeyId) -> Principal:
        """Who holds the key behind a stream token.

        Raises:
            NotAuthenticated: it is revoked or expired.
            Transient: the database cannot be asked.
        """
        return _remembered(self._by_id, key_id) or await _answer(self._signed, key_id)

    def forget(self, key_ids: Collection[KeyId]) -> None:
        """These have been found to be valid no more: whoever comes with one is asked about in the database."""
        for hashed in [each for each, (_, principal) in self._known.items() if principal.key_id in key_ids]:
            del self._known[hashed]
        for key_id in key_ids:
            self._by_id.pop(key_id, None)

    async def _look[K: Hashable](
        self, known: _Known[K], find: _Find[K], asked: Sequence[K]
    ) -> dict[K, Principal]:
        """Who they are. Those who asked while a read was under way find here what it has remembered, and the rest is read."""
        now = time.monotonic()
        found = {key: principal for key in asked if (principal := _remembered(known, key))}
        if unknown := [key for key in asked if key not in found]:
            async with self._pool.connection() as connection:
                read = await find(connection, unknown)
            for key in unknown:
                if key in read:
                    _remember(known, key, (now + self._remember_seconds, read[key]))
                else:
                    known.pop(key, None)
            found |= read
        return found


async def _answer[K: Hashable](together: Together[K, Principal], key: K) -> Principal:
    principal = await together.ask(key)
    if principal is None:
        raise NotAuthenticated
    return principal


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
