"""The log that `Seed` writes in Postgres, with the face of `fakes.log.FakeLog`: both run `suites/log_suite.py`."""

from uuid import UUID

from juinie_shared.db.event_json import EVENT_JSON
from juinie_shared.db.pool import Pool
from juinie_shared.domain.ids import RunId
from juinie_testkit.fakes.log import LoggedEvent
from juinie_testkit.seed import Json, Seed

_READ_AFTER = f"""
    SELECT e.seq, e.type, {EVENT_JSON} AS json FROM run_event e WHERE e.run_id = $1 AND e.seq > $2
    ORDER BY e.seq LIMIT $3
"""  # noqa: S608 - constants only
_RUN = "SELECT last_seq, status FROM run WHERE run_id = $1"
_UNSENT = "SELECT first_seq, last_seq FROM outbox WHERE run_id = $1 ORDER BY id"
_MARK_SENT = "DELETE FROM outbox WHERE run_id = $1 AND first_seq = $2"


class StoredLog:
    """See `FakeLog`: the same methods, on Postgres."""

    def __init__(self, pool: Pool) -> None:
        self._pool, self._seed = pool, Seed(pool)

    async def create(self) -> RunId:
        return await self._seed.run("a")

    async def append(self, run_id: UUID, *events: tuple[str, str]) -> tuple[int, int]:
        return await self._seed.append(run_id, *((name, Json(data)) for name, data in events))

    async def finish(self, run_id: UUID, status: str = "success") -> int:
        return await self._seed.finish(run_id, status)

    async def read_after(self, run_id: UUID, seq: int, limit: int = 500) -> list[LoggedEvent]:
        async with self._pool.connection() as connection:
            rows = await connection.fetch(_READ_AFTER, run_id, seq, limit)
        return [LoggedEvent(row["seq"], row["type"], row["json"]) for row in rows]

    async def last_seq(self, run_id: UUID) -> int:
        async with self._pool.connection() as connection:
            row = await connection.fetchrow(_RUN, run_id)
        return row["last_seq"] if row else 0

    async def status(self, run_id: UUID) -> str:
        async with self._pool.connection() as connection:
            row = await connection.fetchrow(_RUN, run_id)
        return row["status"] if row else ""

    async def unsent(self, run_id: UUID) -> list[tuple[int, int]]:
        async with self._pool.connection() as connection:
            rows = await connection.fetch(_UNSENT, run_id)
        return [(row["first_seq"], row["last_seq"]) for row in rows]

    async def mark_sent(self, run_id: UUID, first_seq: int) -> None:
        async with self._pool.connection() as connection:
            await connection.execute(_MARK_SENT, run_id, first_seq)
