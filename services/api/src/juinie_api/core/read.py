"""Read runs: one, a list, the active one of a thread."""

from dataclasses import dataclass

from juinie_api.core.run import Run, listed_run_of, run_of
from juinie_api.store import runs
from juinie_shared.db.pool import Pool
from juinie_shared.domain.errors import RunNotFound
from juinie_shared.domain.ids import RunId, TenantId


@dataclass(frozen=True, slots=True)
class RunPage:
    """Runs, the newest first. `more`: there are older ones."""

    runs: list[Run]
    more: bool


async def read_run(pool: Pool, run_id: RunId, tenant_id: TenantId) -> Run:
    """The run.

    Raises:
        RunNotFound: there is none, or it is another tenant's, or it is deleted: one answer for all.
    """
    async with pool.connection() as connection:
        row = await connection.fetchrow(runs.READ_RUN, run_id, tenant_id)
    if row is None:
        raise RunNotFound
    return run_of(row)


async def list_runs(pool: Pool, tenant_id: TenantId, wanted: runs.ListFilter, size: runs.PageSize) -> RunPage:
    """One page: at most so many runs, and no more once its bytes are full."""
    async with pool.connection() as connection:
        rows, more = await runs.list_runs(connection, tenant_id, wanted, size)
    return RunPage([listed_run_of(row) for row in rows], more)


async def active_run(pool: Pool, tenant_id: TenantId, thread_id: str) -> Run | None:
    """The newest run of the thread that has not ended, if any."""
    async with pool.connection() as connection:
        row = await connection.fetchrow(runs.ACTIVE_RUN, tenant_id, thread_id)
    return run_of(row) if row else None
