"""Places for what goes on for a while: at most so many at once for a tenant, over all processes, as of the last second."""

from collections.abc import Generator
from contextlib import contextmanager

from juinie_shared.domain.errors import TooManyWaiting
from juinie_shared.domain.ids import TenantId
from juinie_shared.runtime.shared_counts import SharedCounts

RETRY_SECONDS = 5


class WaitingPlaces:
    """`with places.taken(tenant_id, limit)` around a wait."""

    def __init__(self, counts: SharedCounts) -> None:
        self._counts = counts

    @contextmanager
    def taken(self, tenant_id: TenantId, limit: int | None) -> Generator[None]:
        """
        Raises:
            TooManyWaiting: all places are taken.
        """
        if limit is None:
            yield
            return
        name = f"waiting {tenant_id}"
        if self._counts.total(name) >= limit:
            raise TooManyWaiting(RETRY_SECONDS, ["tenant-waiting"])
        self._counts.add(name)
        try:
            yield
        finally:
            self._counts.add(name, -1)
