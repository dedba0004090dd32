"""Ask a run to stop. A pending one, that nobody works on, is finished at once; a running one's worker is told."""

from collections.abc import Callable

from juinie_api.core.append import Append, Ending, write
from juinie_api.core.finish import with_ending
from juinie_api.core.lanes import RunLanes
from juinie_api.core.run import Run, run_of
from juinie_api.core.tenant_pools import TenantPools
from juinie_api.store import runs
from juinie_shared.contracts.run_event_data import cancel_requested_data
from juinie_shared.db.again import again
from juinie_shared.domain.errors import RunNotFound
from juinie_shared.domain.events import RUN_CANCEL_REQUESTED, NewEvent
from juinie_shared.domain.ids import RunId, TenantId
from juinie_shared.domain.runs import RunStatus


async def cancel(
    pools: TenantPools,
    lanes: RunLanes,
    wake_publisher: Callable[[], None],
    run_id: RunId,
    tenant_id: TenantId,
    reason: str | None,
    traceparent: str | None,
) -> tuple[Run, bool]:
    """The run, and whether it had ended before. Asking again changes nothing.

    The decision and what follows from it are one transaction under the run's row lock.

    Raises:
        RunNotFound: no such run.
    """

    async def decide() -> tuple[Run, bool]:
        async with connection.transaction():
            row = await connection.fetchrow(runs.LOCK_RUN, run_id, tenant_id)
            if row is None:
                raise RunNotFound
            run = run_of(row)
            if run.status.terminal or run.cancel_requested:
                return run, run.status.terminal
            await write(connection, _request(run, tenant_id, reason, traceparent))
            row = await connection.fetchrow(runs.READ_RUN, run_id, tenant_id)
        wake_publisher()
        return run_of(row or {}), False

    async with (
        lanes.turn(tenant_id, run_id) as turn,
        pools.of(tenant_id, turn.seconds_left()).connection() as connection,
    ):
        return await again(decide)


def _request(run: Run, tenant_id: TenantId, reason: str | None, traceparent: str | None) -> Append:
    event = NewEvent(RUN_CANCEL_REQUESTED, cancel_requested_data(reason))
    request = Append(run.run_id, tenant_id, [event], starts=False, asks_cancel=True, traceparent=traceparent)
    if run.status is RunStatus.PENDING:
        return with_ending(request, Ending(RunStatus.CANCELLED, None, None))
    return request
