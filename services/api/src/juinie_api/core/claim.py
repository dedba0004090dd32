"""Give a run that waits to a worker: one run to one worker, with a lease, in one statement (`store.claims.CLAIM`)."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import msgspec

from juinie_api.core.lease import Lease, lease_of
from juinie_api.core.run import Run, run_of
from juinie_api.store import claims
from juinie_shared.db.pool import Pool
from juinie_shared.domain.ids import TenantId

type Waiting = tuple[TenantId, str]
"""A tenant and the name of an agent of its own."""


@dataclass(frozen=True, slots=True)
class Claimant:
    """Who wants the run, and for how long it is given: a claim at birth holds one, and so does each `Claim`."""

    worker_id: str
    lease_seconds: int

    @property
    def worker_json(self) -> str:
        return msgspec.json.encode(self.worker_id).decode()


@dataclass(frozen=True, slots=True)
class Claim:
    """A worker's wish for the oldest run that waits for one of these agents."""

    tenant_id: TenantId
    agents: Sequence[str]
    claimant: Claimant
    traceparent: str | None = None


@dataclass(frozen=True, slots=True)
class Claimed:
    """The run as it is now, running, and the worker's lease on it."""

    run: Run
    lease: Lease


async def claim_run(pool: Pool, claim: Claim) -> Claimed | None:
    """Take a run and start it, or find that none waits that nobody else has just now.

    When the answer does not arrive, the run may have been taken all the same; its lease then runs out.
    """
    async with pool.connection() as connection:
        row = await connection.fetchrow(
            claims.CLAIM,
            claim.tenant_id,
            list(claim.agents),
            claim.claimant.worker_id,
            claim.claimant.worker_json,
            claim.claimant.lease_seconds,
            claim.traceparent,
        )
    lease = lease_of(row) if row else None
    return Claimed(run_of(row), lease) if row and lease else None


async def give_back(pool: Pool, claimed: Claimed) -> None:
    """Let the lease of a run that reached no worker run out now: the sweeper gives the run to another one at once."""
    async with pool.connection() as connection:
        await connection.execute(claims.GIVE_BACK, claimed.run.run_id, claimed.lease.token)


async def find_pending(pool: Pool, wanted: Iterable[Waiting]) -> set[Waiting]:
    """For which of these a run waits: one query, whatever their number."""
    pairs = list(wanted)
    tenants, agents = [tenant_id for tenant_id, _ in pairs], [agent for _, agent in pairs]
    async with pool.connection() as connection:
        rows = await connection.fetch(claims.FIND_PENDING, tenants, agents)
    return {(TenantId(row["tenant_id"]), row["agent"]) for row in rows}
