"""Which duties this publisher has: its share of the shards, and what only one publisher does at a time.

A duty is held for the length of a lease, by the database's clock, and renewed long before its end. Here it is held only
until a deadline on our own clock that was set before the renewal was sent: so we stop no later than the database lets
another publisher begin, also when we were stopped in between and know nothing of it. What was begun before may still
end after it: whatever is done under a duty must bear being done twice.
"""

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Protocol

from juinie_publisher.core.doorbell import Doorbell
from juinie_publisher.store.duties import Share
from juinie_publisher.telemetry import Telemetry
from juinie_shared.domain.errors import Transient

SWEEP = "sweep"
RETENTION = "retention"

_SINGLE = (SWEEP, RETENTION)
type HasDuty = Callable[[], bool]
"""Whether this process is the one that has a certain duty, now."""

_NOTHING = Share(frozenset(), frozenset(), frozenset())


@dataclass(frozen=True, slots=True)
class DutyTimes:
    """How long a lease is, how often it is renewed, and how soon a renewal that failed is repeated."""

    lease_seconds: float = 6.0
    renew_seconds: float = 1.5
    retry_seconds: float = 0.3


class Leases(Protocol):
    async def share_out(self, lease_seconds: float) -> Share:
        """Renew what is held, take what is free up to a fair share, give back what is beyond it."""
        ...

    async def give_all_back(self) -> None: ...

    async def wake_others(self) -> None: ...


class Duties:
    """The duties of one publisher.

    `bell`: rung when another publisher came, went, or gave something back. `on_change`: called when what is held changed.
    """

    def __init__(
        self, leases: Leases, bell: Doorbell, on_change: Callable[[], None], telemetry: Telemetry,
        times: DutyTimes | None = None, clock: Callable[[], float] = time.monotonic,
    ) -> None:  # fmt: skip
        self._leases = leases
        self._bell = bell
        self._on_change = on_change
        self._telemetry = telemetry
        self._times = times or DutyTimes()
        self._clock = clock
        self._share = _NOTHING
        self._held_until = 0.0
        self._is_member = False

    @property
    def shards(self) -> frozenset[int]:
        """The shards that are ours to relay at this moment: none while the relay is paused."""
        return self._share.shards if self._is_in_time() and not self._share.paused else frozenset()

    def holds(self, name: str) -> bool:
        """Whether this duty is ours at this moment."""
        return name in self._share.held and self._is_in_time()

    async def run(self, stopping: asyncio.Event) -> None:
        """Share in the duties until `stopping` is set. What is held then stays so until `leave`."""
        while not stopping.is_set():
            try:
                await self.turn()
            except Transient as error:
                self._telemetry.failed("duties", error)
                await self._bell.wait(self._times.retry_seconds)
            else:
                await self._bell.wait(self._times.renew_seconds)

    async def turn(self) -> None:
        """Renew and balance once, and tell the others where that leaves something for them, or wants something of them."""
        asked_at = self._clock()
        share = await self._leases.share_out(self._times.lease_seconds)
        self._take(share, asked_at + self._times.lease_seconds)
        is_new, self._is_member = not self._is_member, True
        if is_new or share.given_back:
            await self._leases.wake_others()

    async def leave(self) -> None:
        """Give all back at once. Where that fails, the leases run out."""
        self._take(replace(_NOTHING, given_back=self._share.held, paused=self._share.paused), 0.0)
        if not self._is_member:
            return
        try:
            await self._leases.give_all_back()
            await self._leases.wake_others()
        except Transient as error:
            self._telemetry.failed("duties", error)

    def _take(self, share: Share, held_until: float) -> None:
        before, self._share, self._held_until = self._share, share, held_until
        lost = before.held - share.held - share.given_back
        if lost:
            self._telemetry.duties_lost(sorted(lost))
        if share.held != before.held:
            self._telemetry.duties_are(len(share.shards), [name for name in _SINGLE if name in share.held])
        if share.paused != before.paused:
            self._telemetry.paused(share.paused)
        if (share.held, share.paused) != (before.held, before.paused):
            self._on_change()

    def _is_in_time(self) -> bool:
        return self._clock() < self._held_until
