"""A run that this worker has claimed: everything it does carries the lease, so that a worker that lost it writes nothing."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from juinie.client import Client


@dataclass(frozen=True)
class Claim:
    """A lease on a run. `attempt` rises each time the run is claimed anew."""

    client: "Client"
    run: dict[str, Any]
    lease: str
    attempt: int

    @property
    def run_id(self) -> str:
        return self.run["run_id"]

    async def append(self, *events: tuple[str, Any], idempotency_key: str | None = None) -> dict[str, Any]:
        """Append, and renew the lease.

        Raises:
            LeaseLost: nothing was written. Stop working on this run.
        """
        return await self.client.append(
            self.run_id, *events, idempotency_key=idempotency_key, lease=self.lease
        )

    async def heartbeat(self) -> dict[str, Any]:
        """Renew the lease while there is nothing to append. Gives `cancel_requested` among others."""
        return await self.client.heartbeat(self.run_id, self.lease)

    async def finish(
        self, status: str = "success", *, output: Any = None, error: Any = None
    ) -> dict[str, Any]:
        """Finish the run. Gives the Run."""
        return await self.client.finish(self.run_id, status, output=output, error=error, lease=self.lease)
