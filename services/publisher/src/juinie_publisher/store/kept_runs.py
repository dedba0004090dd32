"""Finished runs past what their tenant keeps: their events, then the runs themselves.

The invariant that readers build on: a run says what is gone in the transaction that takes it. A reader that sees the
run's row and its events in one snapshot sees either the events or the `retained_from_seq` that tells of them.

Nothing of a run is taken while anything of it is still to be published: the record could not be made any more.
"""

from dataclasses import dataclass
from datetime import timedelta

from juinie_shared.db.pool import Connection, Pool, Row
from juinie_shared.domain.ids import RunId, TenantId

BY_INDEX_ALONE = "SET LOCAL enable_seqscan = off"
"""For statements that ask the outbox for one run: a plan that was made while it was empty would read all of it, for
each run, once Kafka has been away for a while."""

ALONG_INDEX = f"{BY_INDEX_ALONE}; SET LOCAL enable_bitmapscan = off"
"""And in its order: a bitmap takes all that is asked for, to sort it, where that is thought to be little."""

TENANTS = """
    SELECT tenant_id, greatest(least(events_after, interval '1000 years'), interval '0') AS events_after,
           greatest(least(runs_after, interval '1000 years'), interval '0') AS runs_after
    FROM tenant WHERE events_after IS NOT NULL OR runs_after IS NOT NULL
    ORDER BY tenant_id
"""
"""The tenants that do not keep all for ever. Within what a timestamp can bear, whatever somebody wrote by hand."""

_PUBLISHED = """
    NOT EXISTS (SELECT FROM outbox WHERE outbox.run_id = run.run_id)
    AND NOT EXISTS (SELECT FROM dead_letter WHERE dead_letter.run_id = run.run_id)
"""
"""Indexes: outbox_run_id_idx, dead_letter_run_id_idx."""

LOCK_WITH_EVENTS = f"""
    WITH old AS MATERIALIZED (
        SELECT run_id, finished_at, last_seq - retained_from_seq + 1 AS events FROM run
        WHERE tenant_id = $1 AND finished_at IS NOT NULL AND events_removed_at IS NULL AND deleted_at IS NULL
            AND finished_at <= (SELECT clock_timestamp() - $2::interval) AND {_PUBLISHED}
        ORDER BY finished_at LIMIT $3
    ), counted AS (
        SELECT run_id, sum(events) OVER (ORDER BY finished_at, run_id) - events AS before FROM old
    )
    SELECT run_id FROM run JOIN counted USING (run_id) WHERE before < $3 ORDER BY before
    FOR UPDATE OF run SKIP LOCKED
"""  # noqa: S608 - made of constants
"""The tenant $1's oldest runs of those that finished $2 ago, so many as have $3 events, under their rows' locks.

Leaves alone those that another has: a run that is being deleted, republished or judged. Index: run_finished_idx.
"""

REMOVE_EVENTS = f"""
    WITH counted AS (
        SELECT run_id, retained_from_seq, last_seq,
               sum(last_seq - retained_from_seq + 1) OVER (ORDER BY finished_at, run_id)
               - (last_seq - retained_from_seq + 1) AS before
        FROM run
        WHERE run_id = ANY($1::uuid[]) AND events_removed_at IS NULL AND deleted_at IS NULL AND {_PUBLISHED}
    ), cut AS MATERIALIZED (
        SELECT run_id, last_seq, retained_from_seq, least(last_seq, retained_from_seq + $2 - 1 - before)::bigint AS until_seq
        FROM counted WHERE before < $2
    ), removed AS (
        DELETE FROM run_event USING cut
        WHERE run_event.run_id = cut.run_id AND seq BETWEEN cut.retained_from_seq AND cut.until_seq
        RETURNING seq
    ), told AS (
        UPDATE run SET
            retained_from_seq = cut.until_seq + 1,
            events_removed_at = CASE WHEN cut.until_seq = cut.last_seq THEN clock_timestamp() END
        FROM cut WHERE run.run_id = cut.run_id
        RETURNING run.run_id
    )
    SELECT (SELECT count(*) FROM removed) AS events, count(*) AS runs FROM told
"""  # noqa: S608 - made of constants
"""Up to $2 events of the runs $1, from the low end of each.

Counts on the locks of LOCK_WITH_EVENTS in the same transaction, and looks at the outbox again: what was republished
before a row was locked can be younger than the statement that locked it. Indexes: run_pkey, outbox_run_id_idx,
run_event_pkey. A step within a long run changes no indexed column.
"""

LOCK_OLD = f"""
    SELECT run_id FROM run
    WHERE tenant_id = $1 AND finished_at IS NOT NULL AND deleted_at IS NULL
        AND finished_at <= (SELECT clock_timestamp() - $2::interval) AND {_PUBLISHED}
    ORDER BY finished_at LIMIT $3
    FOR UPDATE SKIP LOCKED
"""  # noqa: S608 - made of constants
"""Locks as LOCK_WITH_EVENTS does. Indexes: run_kept_idx, outbox_run_id_idx."""

BURY = f"""
    WITH hidden AS (
        UPDATE run SET deleted_at = clock_timestamp(), due_at = NULL
        WHERE run_id = ANY($1::uuid[]) AND deleted_at IS NULL AND {_PUBLISHED}
        RETURNING run_id, deleted_at
    ), buried AS (
        INSERT INTO run_tombstone (run_id, deleted_at) SELECT run_id, deleted_at FROM hidden
        ON CONFLICT (run_id) DO NOTHING
    )
    SELECT count(*) FROM hidden
"""  # noqa: S608 - made of constants
"""As the route that deletes a run: hidden at once, its id taken for ever, the rest left to the purge.

Counts on the locks of LOCK_OLD in the same transaction, and looks at the outbox again, as REMOVE_EVENTS does.
"""


@dataclass(frozen=True, slots=True)
class Kept:
    """How long a tenant keeps what has finished. None: for ever."""

    tenant_id: TenantId
    events_after: timedelta | None
    runs_after: timedelta | None


@dataclass(frozen=True, slots=True)
class Removed:
    """What one batch took: so many events, of so many runs."""

    events: int
    runs: int


class KeptRunStore:
    """What tenants keep, and what they keep no more. Every method is one short transaction."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool

    async def tenants(self) -> list[Kept]:
        async with self._pool.connection() as connection:
            return [_kept(row) for row in await connection.fetch(TENANTS)]

    async def remove_events(self, tenant_id: TenantId, after: timedelta, batch: int) -> Removed:
        """Take up to `batch` events of runs that finished so long ago."""
        async with self._pool.transaction() as tx:
            if not (runs := await _locked(tx, LOCK_WITH_EVENTS, tenant_id, after, batch)):
                return Removed(0, 0)
            row = await tx.fetchrow(REMOVE_EVENTS, runs, batch)
        return Removed(row["events"], row["runs"]) if row else Removed(0, 0)

    async def bury_runs(self, tenant_id: TenantId, after: timedelta, batch: int) -> int:
        """Hide up to `batch` runs that finished so long ago. Gives how many."""
        async with self._pool.transaction() as tx:
            runs = await _locked(tx, LOCK_OLD, tenant_id, after, batch)
            return await tx.fetchval(BURY, runs) if runs else 0


async def _locked(
    tx: Connection, lock: str, tenant_id: TenantId, after: timedelta, batch: int
) -> list[RunId]:
    await tx.execute(BY_INDEX_ALONE)
    return [row["run_id"] for row in await tx.fetch(lock, tenant_id, after, batch)]


def _kept(row: Row) -> Kept:
    return Kept(TenantId(row["tenant_id"]), row["events_after"], row["runs_after"])
