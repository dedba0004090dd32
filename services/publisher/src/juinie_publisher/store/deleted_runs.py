"""Deleted runs: what is left of them goes in batches."""

from juinie_publisher.store.kept_runs import ALONG_INDEX
from juinie_shared.db.pool import Pool

LOCK_DELETED_RUN = """
    SELECT run_id FROM run
    WHERE deleted_at < (SELECT clock_timestamp() - make_interval(secs => $1::float8))
      AND NOT EXISTS (SELECT FROM outbox WHERE outbox.run_id = run.run_id)
      AND NOT EXISTS (SELECT FROM dead_letter WHERE dead_letter.run_id = run.run_id)
    ORDER BY deleted_at LIMIT 1 FOR UPDATE SKIP LOCKED
"""
"""One run, deleted at least $1 seconds ago, of which nothing is left to publish. Nothing new can come: a deleted run takes no appends.

Locks the run's row against another publisher that purges. Indexes, and ALONG_INDEX: run_deleted_idx,
outbox (run_id), dead_letter (run_id).
"""

HIDDEN_SECONDS = 10.0
"""A deleted run's row stays so long at least: longer than any statement of the api takes. A create with its id that had begun before, and so sees no
tombstone, finds the row instead."""

PURGE_EVENTS = """
    DELETE FROM run_event WHERE run_id = $1
    AND seq <= (SELECT max(seq) FROM (SELECT seq FROM run_event WHERE run_id = $1 ORDER BY seq LIMIT $2) AS first)
"""
"""By run_event_pkey, twice: up to the last of the first. With `IN`, what a run of many events is thought to have, where most have few, has the first of
them read once for each of all."""

PURGE_APPEND_KEYS = """
    DELETE FROM append_key WHERE run_id = $1
    AND key <= (SELECT max(key) FROM (SELECT key FROM append_key WHERE run_id = $1 ORDER BY key LIMIT $2) AS first)
"""
"""By append_key_pkey, likewise."""

PURGE_RUN = """
    WITH keys AS (DELETE FROM create_key WHERE run_id = $1)
    DELETE FROM run WHERE run_id = $1
"""


class DeletedRunStore:
    """The deleted runs. Every method is one short transaction."""

    def __init__(self, pool: Pool, hidden_seconds: float = HIDDEN_SECONDS) -> None:
        self._pool, self._hidden_seconds = pool, hidden_seconds

    async def purge_some(self, batch: int) -> tuple[bool, bool]:
        """Delete up to `batch` events and keys of one deleted run, and its row with the last of them.

        Gives whether there was such a run, and whether it is gone now.
        """
        async with self._pool.transaction() as connection:
            await connection.execute(ALONG_INDEX)
            run_id = await connection.fetchval(LOCK_DELETED_RUN, self._hidden_seconds)
            if run_id is None:
                return False, False
            for statement in (PURGE_EVENTS, PURGE_APPEND_KEYS):
                if _count(await connection.execute(statement, run_id, batch)) == batch:
                    return True, False
            await connection.execute(PURGE_RUN, run_id)
            return True, True


def _count(status: str) -> int:
    """How many rows a command's status (`DELETE 3`) speaks of."""
    return int(status.rpartition(" ")[2])
