"""Delete a finished run: hidden from everybody at once, its id taken for ever, its events purged later."""

from juinie_api.core.lanes import RunLanes
from juinie_api.core.tenant_pools import TenantPools
from juinie_api.store import runs
from juinie_shared.domain.errors import RunNotFinished, RunNotFound
from juinie_shared.domain.ids import RunId, TenantId


async def delete(pools: TenantPools, lanes: RunLanes, run_id: RunId, tenant_id: TenantId) -> None:
    """Hide the run and leave its tombstone.

    Raises:
        RunNotFound: no such run, or deleted already.
        RunNotFinished: it is pending or running.
    """
    async with (
        lanes.turn(tenant_id, run_id) as turn,
        pools.of(tenant_id, turn.seconds_left()).connection() as connection,
    ):
        finished = await connection.fetchval(runs.DELETE, run_id, tenant_id)
    if finished is None:
        raise RunNotFound
    if not finished:
        raise RunNotFinished
