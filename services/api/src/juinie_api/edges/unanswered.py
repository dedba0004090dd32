"""Bodies of requests that are not answered yet: how many bytes of them this process holds at once.

A tenant holds at most as much as is left free, so whoever comes finds room, whatever the others do: one tenant alone gets half of
all, two a third each (dynamic thresholds, as switches share their buffers). Small bodies are not counted: the number of connections bounds them.
"""

from collections import Counter
from collections.abc import Callable

from juinie_shared.domain.errors import ServerBusy
from juinie_shared.domain.ids import TenantId

UNCOUNTED_BYTES = 16 * 1024
"""A body up to this size takes no part. Most appends are far smaller."""


class Unanswered:
    """`take` what a body has grown by, and `give_back` all of it when its request is answered. Sizes are of bytes, `most_bytes` of all tenants."""

    def __init__(self, most_bytes: int, on_refused: Callable[[], None] = lambda: None) -> None:
        self._most_bytes, self._on_refused = most_bytes, on_refused
        self._of = Counter[TenantId]()
        self.held_bytes = 0

    def take(self, tenant_id: TenantId, size: int) -> None:
        """
        Raises:
            ServerBusy: with so much more, the tenant would hold more than it leaves free.
        """
        if self._of[tenant_id] + size > self._most_bytes - self.held_bytes - size:
            self._on_refused()
            raise ServerBusy
        self._of[tenant_id] += size
        self.held_bytes += size

    def give_back(self, tenant_id: TenantId, size: int) -> None:
        """Nothing, where nothing was taken."""
        self._of[tenant_id] -= size
        self.held_bytes -= size
        if not self._of[tenant_id]:
            del self._of[tenant_id]
