"""What is waited for at the desk: which queues somebody waits in, and so for which agents' runs it is looked again and again.

Each agent of each such queue is one more question of every look. A tenant may have so many of them and no more, and the looks
ask in batches, of all tenants in turn: whoever waits for few agents is in the first batch, however many others wait for.
"""

from collections.abc import Iterator

from juinie_api.core.claim_queue import ClaimQueue
from juinie_shared.domain.errors import TooManyWaiting
from juinie_shared.domain.ids import TenantId

TENANT_PAIRS = 2_000
"""Agents of queues that a tenant may wait in, at one process. All who wait for the same agents are one queue."""
BATCH_PAIRS = 1_000
"""So many agents, and those of one queue more, are asked for at once."""
RETRY_SECONDS = 5


class Wanted:
    """`sit_down` for each who waits in a queue, `get_up` when it no longer does."""

    def __init__(self) -> None:
        self._tenants: dict[TenantId, _OfTenant] = {}

    def sit_down(self, queue: ClaimQueue) -> None:
        """
        Raises:
            TooManyWaiting: nobody waits in it, and its tenant waits for as many agents as it may.
        """
        of_tenant = self._tenants.get(queue.tenant_id) or _OfTenant()
        if queue not in of_tenant.seats and of_tenant.pairs + queue.agents > TENANT_PAIRS:
            raise TooManyWaiting(RETRY_SECONDS, ["tenant-waiting"])
        self._tenants[queue.tenant_id] = of_tenant
        of_tenant.sit_down(queue)

    def get_up(self, queue: ClaimQueue) -> None:
        of_tenant = self._tenants[queue.tenant_id]
        of_tenant.get_up(queue)
        if not of_tenant.seats:
            del self._tenants[queue.tenant_id]

    def batches(self) -> Iterator[list[ClaimQueue]]:
        """The queues that somebody waits in now, each once: one of each tenant, then the next one of each."""
        rest = [list(of_tenant.seats) for of_tenant in self._tenants.values()]
        batch, pairs = list[ClaimQueue](), 0
        place = 0
        while rest:
            for queues in rest:
                batch.append(queues[place])
                pairs += queues[place].agents
                if pairs >= BATCH_PAIRS:
                    yield batch
                    batch, pairs = [], 0
            place += 1
            rest = [queues for queues in rest if len(queues) > place]
        if batch:
            yield batch


class _OfTenant:
    """How many wait in each of its queues, and the number of agents of those."""

    def __init__(self) -> None:
        self.seats: dict[ClaimQueue, int] = {}
        self.pairs = 0

    def sit_down(self, queue: ClaimQueue) -> None:
        if queue not in self.seats:
            self.seats[queue] = 0
            self.pairs += queue.agents
        self.seats[queue] += 1

    def get_up(self, queue: ClaimQueue) -> None:
        self.seats[queue] -= 1
        if not self.seats[queue]:
            del self.seats[queue]
            self.pairs -= queue.agents
