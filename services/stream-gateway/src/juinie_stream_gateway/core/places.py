"""Places for streams: at most so many open at once, in this process, for a tenant, a key and a run.

Those of a tenant, a key and a run are counted over all gateways, as of the last second. What a gateway held that died
is free again a few seconds later. A place is taken and given back in one call each, with nothing to wait for between.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import msgspec

from juinie_shared.db.keys import Principal
from juinie_shared.domain.errors import Transient
from juinie_shared.domain.ids import RunId
from juinie_shared.domain.quotas import Quota, limit_of
from juinie_shared.runtime.shared_counts import SharedCounts


class TooManyStreams(Transient):
    """Too many streams are open. Try again shortly."""

    code = "too_many_streams"


@dataclass(frozen=True, slots=True)
class PlaceLimits:
    """None: any number. The last three hold where a tenant or key has no quota of its own."""

    process: int
    tenant: int | None = None
    key: int | None = None
    run: int | None = None


class Place(msgspec.Struct, frozen=True):
    """A stream's place: the names under which it was counted."""

    names: Sequence[str]


class Places:
    """All places of this gateway."""

    def __init__(self, counts: SharedCounts, limits: PlaceLimits) -> None:
        self._counts, self._limits = counts, limits
        self._open = 0

    def has_room(self) -> bool:
        """Whether this process has any left, for whomever."""
        return self._open < self._limits.process

    def take(self, holder: Principal, run_id: RunId) -> Place:
        """
        Raises:
            TooManyStreams: no place is left.
        """
        limits = self._limits_of(holder, run_id)
        if not self.has_room():
            raise TooManyStreams
        if any(self._counts.total(name) >= limit for name, limit in limits.items()):
            raise TooManyStreams
        self._open += 1
        for name in limits:
            self._counts.add(name)
        return Place(tuple(limits))

    def give_back(self, place: Place) -> None:
        self._open -= 1
        for name in place.names:
            self._counts.add(name, -1)

    def _limits_of(self, holder: Principal, run_id: RunId) -> dict[str, int]:
        """The limits that hold, by the name under which they are counted; what is not limited is not counted."""
        tenant, key = holder.tenant_quotas, holder.key_quotas
        limits = (
            ("tenant", holder.tenant_id, limit_of(tenant, Quota.STREAMS, self._limits.tenant)),
            ("key", holder.key_id, limit_of(key, Quota.STREAMS, self._limits.key)),
            ("run", run_id, limit_of(tenant, Quota.STREAMS_PER_RUN, self._limits.run)),
        )
        return {f"streams {of} {id_of}": limit for of, id_of, limit in limits if limit is not None}
