"""All SQL of the stream gateway, and the rows it gives. Reads only: a gateway writes nothing but its counts (`db/counts.py`)."""

import asyncio
from collections.abc import AsyncGenerator, Collection, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

from juinie_shared.contracts.sse import event_frame
from juinie_shared.db.event_json import EVENT_JSON
from juinie_shared.db.pool import Connection, Pool
from juinie_shared.domain.errors import DatabaseBusy
from juinie_shared.domain.ids import KeyId, RunId, Seq, TenantId
from juinie_shared.domain.runs import RunStatus

FIND_RUN = """
    SELECT last_seq, status, retained_from_seq FROM run
    WHERE run_id = $1 AND tenant_id = $2 AND deleted_at IS NULL
"""
"""By run_pkey. Another tenant's run is not found, as one that never was."""

READ_RUNS = """
    SELECT run_id, last_seq, status, retained_from_seq FROM run
    WHERE run_id = ANY($1::uuid[]) AND deleted_at IS NULL
"""
"""By run_pkey: one query for all open streams."""

FRAME_BYTES = 112
"""What a frame has around an event's type and data, at most, with its seq twice."""

READ_PAGE = f"""
    WITH page AS (
        SELECT seq, type, data, occurred_at FROM run_event WHERE run_id = $1 AND seq > $2 ORDER BY seq LIMIT $3
    ), measured AS (
        SELECT page.*, sum(octet_length(data) + octet_length(type) + {FRAME_BYTES}) OVER (ORDER BY seq) AS bytes,
               min(seq) OVER () AS first_seq
        FROM page
    )
    SELECT run.last_seq, run.status, run.retained_from_seq, e.seq, e.type, convert_to({EVENT_JSON}, 'UTF8') AS json
    FROM run LEFT JOIN measured AS e ON e.bytes <= $4 OR e.seq = e.first_seq
    WHERE run.run_id = $1 AND run.deleted_at IS NULL
    ORDER BY e.seq
"""  # noqa: S608 - EVENT_JSON is a constant of ours
"""By run_event_pkey, never more than a page. The run's row comes from the same snapshot: what the row says of
last_seq and status holds for these events. A run without events after $2 gives its row alone."""

VALID_KEYS = """
    SELECT key_id FROM api_key
    WHERE key_id = ANY($1::uuid[]) AND revoked_at IS NULL AND (expires_at IS NULL OR expires_at > clock_timestamp())
"""


START_OF_RUN = Seq(1)


@dataclass(frozen=True, slots=True)
class RunRow:
    """What a run's row says at one moment."""

    last_seq: Seq
    status: RunStatus
    retained_from_seq: Seq = START_OF_RUN

    @property
    def finished(self) -> bool:
        """A finished run never changes: `last_seq` is its last for ever."""
        return self.status.terminal


@dataclass(frozen=True, slots=True)
class Event:
    """A run event that is ready to send: `frame` is made once, whoever watches."""

    seq: Seq
    type: str
    frame: bytes


@dataclass(frozen=True, slots=True)
class Page:
    """Events of a run in seq order, and the run's row as of the same snapshot."""

    row: RunRow
    events: tuple[Event, ...]


@dataclass(frozen=True, slots=True)
class PageLimits:
    events: int = 500
    bytes: int = 256 * 1024


class Store:
    """Reads for streams. At most `concurrency` at once, so that a storm of watchers is a queue and not a stampede."""

    def __init__(
        self, pool: Pool, limits: PageLimits | None = None, concurrency: int = 4, wait_seconds: float = 5.0
    ) -> None:
        self._pool = pool
        self._limits = limits or PageLimits()
        self._slots = asyncio.Semaphore(concurrency)
        self._wait_seconds = wait_seconds

    async def find_run(self, run_id: RunId, tenant_id: TenantId) -> RunRow | None:
        """The run's row; None when this tenant has no such run."""
        async with self._slot() as connection:
            row = await connection.fetchrow(FIND_RUN, run_id, tenant_id)
        return None if row is None else _run_row(row)

    async def read_page(self, run_id: RunId, after_seq: Seq) -> Page | None:
        """The next events after `after_seq`; None when the run is gone."""
        async with self._slot() as connection:
            rows = await connection.fetch(
                READ_PAGE, run_id, after_seq, self._limits.events, self._limits.bytes
            )
        if not rows:
            return None
        return Page(_run_row(rows[0]), tuple(_event(row) for row in rows if row["seq"] is not None))

    async def read_runs(self, run_ids: Collection[RunId]) -> dict[RunId, RunRow]:
        """The rows of these runs; those that are gone are left out. Waits for no slot: it keeps open streams true."""
        async with self._pool.connection() as connection:
            rows = await connection.fetch(READ_RUNS, list(run_ids))
        return {RunId(row["run_id"]): _run_row(row) for row in rows}

    async def valid_keys(self, key_ids: Collection[KeyId]) -> set[KeyId]:
        """Those of these keys that are neither revoked nor expired."""
        async with self._pool.connection() as connection:
            rows = await connection.fetch(VALID_KEYS, list(key_ids))
        return {KeyId(row["key_id"]) for row in rows}

    @asynccontextmanager
    async def _slot(self) -> AsyncGenerator[Connection]:
        try:
            async with asyncio.timeout(self._wait_seconds):
                await self._slots.acquire()
        except TimeoutError as error:
            raise DatabaseBusy from error
        try:
            async with self._pool.connection() as connection:
                yield connection
        finally:
            self._slots.release()


def _run_row(row: Mapping[str, Any]) -> RunRow:
    return RunRow(Seq(row["last_seq"]), RunStatus(row["status"]), Seq(row["retained_from_seq"]))


def _event(row: Mapping[str, Any]) -> Event:
    return Event(Seq(row["seq"]), row["type"], event_frame(row["seq"], row["json"]))
