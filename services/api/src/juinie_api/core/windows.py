"""Rates: how much of each kind a tenant and a key may use up in a window of time.

    request → the limits that hold for its key → `limits` decides by what this process and the others have counted

The deciding strategy is `limits`' fixed window; its storage is `SharedCounts`, so the sum over all processes counts, as
of the last second. Windows begin at multiples of their length of the database's time: everywhere at once.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import override

from limits import RateLimitItemPerSecond
from limits.aio.storage.base import Storage
from limits.aio.strategies import FixedWindowRateLimiter

from juinie_shared.db.keys import Principal
from juinie_shared.domain.errors import LimitReached, QuotaExceeded, RateLimited
from juinie_shared.domain.quotas import Quota, Quotas, limit_of
from juinie_shared.runtime.shared_counts import SharedCounts

PREFIX = "window"


class Use(StrEnum):
    """What is used up. A policy of ours is called after its holder and one of these: `tenant-events`."""

    REQUESTS = "requests"
    EVENTS = "events"
    BYTES = "bytes"


_QUOTA_OF = {
    Use.REQUESTS: Quota.REQUESTS_PER_MINUTE,
    Use.EVENTS: Quota.EVENTS_PER_MINUTE,
    Use.BYTES: Quota.BYTES_PER_MINUTE,
}

_NO_DEFAULTS: Quotas = {}


class Policy(RateLimitItemPerSecond):
    """One limit of one holder: so much in a window of so many seconds. What was counted outlives a change of it."""

    __slots__ = ("_key", "name", "use")

    def __init__(self, holder: str, holder_id: object, use: Use, amount: int, seconds: int) -> None:
        super().__init__(amount, seconds)
        self.name, self.use = f"{holder}-{use}", use
        self._key = f"{self.name} {holder_id}"

    @override
    def key_for(self, *_identifiers: object) -> str:
        return self._key


@dataclass(frozen=True, slots=True)
class Standing:
    """What is left of a policy, and when it is whole again."""

    policy: Policy
    left: int
    seconds: int


class WindowCounts(Storage):
    """Where `limits` counts: under the present window's name, for all processes."""

    STORAGE_SCHEME = None

    def __init__(self, counts: SharedCounts, seconds: int) -> None:
        super().__init__()
        self._counts, self._seconds = counts, seconds
        self._number = self.number()

    @property
    @override
    def base_exceptions(self) -> type[Exception]:
        return ValueError

    @override
    async def incr(self, key: str, expiry: int, amount: int = 1) -> int:
        return self._counts.add(self._name(key), amount)

    @override
    async def get(self, key: str) -> int:
        return self._counts.total(self._name(key))

    @override
    async def get_expiry(self, key: str) -> float:
        return (self.number() + 1) * self._seconds

    @override
    async def check(self) -> bool:
        return True

    @override
    async def reset(self) -> int:
        gone = [name for name in self._counts.names() if name.startswith(PREFIX)]
        self._counts.forget(gone)
        return len(gone)

    @override
    async def clear(self, key: str) -> None:
        self._counts.forget([self._name(key)])

    def seconds_left(self) -> int:
        """Whole seconds after which the present window is over."""
        return math.ceil((self.number() + 1) * self._seconds - self._counts.now())

    def _name(self, key: str) -> str:
        number = self.number()
        if number != self._number:
            self._number = number
            present = f"{PREFIX} {number * self._seconds} "
            old = [n for n in self._counts.names() if n.startswith(PREFIX) and not n.startswith(present)]
            self._counts.forget(old)
        return f"{PREFIX} {number * self._seconds} {key}"

    def number(self) -> int:
        """Which window it is now."""
        return int(self._counts.now() // self._seconds)


class Windows:
    """Charges requests. `defaults` are the quotas of a tenant that has none of its own."""

    def __init__(self, counts: SharedCounts, defaults: Quotas, seconds: int) -> None:
        self._storage = WindowCounts(counts, seconds)
        self._strategy = FixedWindowRateLimiter(self._storage)
        self._defaults, self._seconds = defaults, seconds

    def policies(self, principal: Principal) -> Sequence[Policy]:
        """All limits that hold for this key; most often none."""
        if principal.unmetered:
            return ()
        return [
            *self._held("tenant", principal.tenant_id, principal.tenant_quotas, self._defaults),
            *self._held("key", principal.key_id, principal.key_quotas, _NO_DEFAULTS),
        ]

    def _held(self, holder: str, holder_id: object, quotas: Quotas, defaults: Quotas) -> Iterator[Policy]:
        if not quotas and not defaults:
            return
        for use, quota in _QUOTA_OF.items():
            limit = limit_of(quotas, quota, defaults.get(quota))
            if limit is not None:
                share = max(1, limit * self._seconds // 60)
                yield Policy(holder, holder_id, use, share, self._seconds)

    async def charge(self, policies: Sequence[Policy], costs: Mapping[Use, int]) -> int:
        """Take all of it, or raise and take nothing. What is larger than a whole window takes a whole, fresh one. Gives
        the number of the window that it was taken from.

        Raises:
            RateLimited: requests are used up.
            QuotaExceeded: events or bytes are.
        """
        due = [
            (policy, min(costs[policy.use], policy.amount)) for policy in policies if costs.get(policy.use)
        ]
        spent = [policy for policy, cost in due if not await self._strategy.test(policy, cost=cost)]
        if spent:
            raise self._refusal(spent)
        for policy, cost in due:
            await self._strategy.hit(policy, cost=cost)
        return self._storage.number()

    async def give_back(self, policies: Sequence[Policy], costs: Mapping[Use, int], window: int) -> None:
        """A charge that came to nothing. In a later window there is nothing to give back."""
        if window != self._storage.number():
            return
        for policy in policies:
            if cost := min(costs.get(policy.use, 0), policy.amount):
                await self._storage.incr(policy.key_for(), self._seconds, -cost)

    async def standing(self, policies: Sequence[Policy]) -> list[Standing]:
        """What is left of each."""
        seconds = self._storage.seconds_left()
        return [
            Standing(policy, (await self._strategy.get_window_stats(policy)).remaining, seconds)
            for policy in policies
        ]

    def _refusal(self, spent: Sequence[Policy]) -> LimitReached:
        kind = RateLimited if any(policy.use is Use.REQUESTS for policy in spent) else QuotaExceeded
        return kind(self._storage.seconds_left(), [policy.name for policy in spent])
