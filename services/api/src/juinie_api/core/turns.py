"""Queues that want a clerk, each once: tenants take turns, and so do the queues of a tenant."""

import asyncio
from collections import deque

from juinie_api.core.claim_queue import ClaimQueue
from juinie_shared.domain.ids import TenantId


class Turns:
    """`put` a queue behind the others of its tenant; `get` gives the next one, waits while there is none."""

    def __init__(self) -> None:
        self._tenants: dict[TenantId, deque[ClaimQueue]] = {}
        self._somebody = asyncio.Event()

    def put(self, queue: ClaimQueue) -> None:
        """Unless it is there already."""
        if not queue.listed:
            queue.listed = True
            self._tenants.setdefault(queue.tenant_id, deque()).append(queue)
            self._somebody.set()

    async def get(self) -> ClaimQueue:
        """Its tenant goes behind all others."""
        while not self._tenants:
            self._somebody.clear()
            await self._somebody.wait()
        tenant_id, queues = next(iter(self._tenants.items()))
        queue = queues.popleft()
        del self._tenants[tenant_id]
        if queues:
            self._tenants[tenant_id] = queues
        queue.listed = False
        return queue
