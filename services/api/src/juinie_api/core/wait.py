"""Wait for a run's end."""

import time

from juinie_api.core.read import read_run
from juinie_api.core.run import Run
from juinie_api.core.waker import Waker
from juinie_shared.db.pool import Pool
from juinie_shared.domain.ids import RunId, TenantId


async def wait_for_end(
    pool: Pool, waker: Waker, run_id: RunId, tenant_id: TenantId, timeout_seconds: float
) -> Run:
    """The run once it has ended, or as it is after `timeout_seconds`. No connection is held while waiting.

    Raises:
        RunNotFound: as `read_run`.
        Transient: the database cannot be asked, or was not seen for as long as may be (`Waker`).
    """
    until = time.monotonic() + timeout_seconds
    run = await read_run(pool, run_id, tenant_id)
    while not run.status.terminal and await waker.wait(run_id, None, until - time.monotonic()):
        run = await read_run(pool, run_id, tenant_id)
    return run
