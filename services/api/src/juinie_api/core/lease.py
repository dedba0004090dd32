"""A worker's lease on a run. Its token in the run's row is the only fence: a lease is lost when the row has another or
none, and not before, whatever the clock says. `store.events.APPEND` compares it in the statement that writes.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from juinie_api.core.lanes import RunLanes
from juinie_api.core.tenant_pools import TenantPools
from juinie_api.store import claims
from juinie_shared.domain.errors import LeaseLost, RunNotFound
from juinie_shared.domain.ids import RunId, TenantId


@dataclass(frozen=True, slots=True)
class Lease:
    """`token` shows that one holds it; `attempt` is the start of the run that it came with."""

    token: UUID
    attempt: int
    expires_at: datetime


@dataclass(frozen=True, slots=True)
class Renewed:
    """Until when the lease is good now, and whether somebody wants the run to stop."""

    expires_at: datetime
    cancel_requested: bool


def lease_of(row: Mapping[str, Any]) -> Lease | None:
    """The lease in a row with `store.runs.LEASE_COLUMNS` and the attempt."""
    if row["lease_token"] is None:
        return None
    return Lease(row["lease_token"], row["attempt"], row["lease_expires_at"])


async def heartbeat(
    pools: TenantPools,
    lanes: RunLanes,
    run_id: RunId,
    tenant_id: TenantId,
    token: UUID,
    lease_seconds: int | None,
) -> Renewed:
    """Renew the lease for `lease_seconds` from now; None: for as long as it was given last.

    Raises:
        RunNotFound: no such run.
        LeaseLost: the token is not that of the run's lease; a run that has ended has none.
    """
    async with (
        lanes.turn(tenant_id, run_id) as turn,
        pools.of(tenant_id, turn.seconds_left()).connection() as connection,
    ):
        row = await connection.fetchrow(claims.HEARTBEAT, run_id, tenant_id, token, lease_seconds)
    if row is None:
        raise RunNotFound
    if not row["held"]:
        raise LeaseLost
    return Renewed(row["lease_expires_at"], row["cancel_requested"])
