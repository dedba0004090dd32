"""All SQL of the stream gateway, and the rows it gives. Reads only: a gateway writes nothing but its counts (`db/counts.py`)."""

from collections.abc import Awaitable, Collection, Mapping, Sequence
from dataclasses import dataclass
from itertools import starmap
from typing import Any

import msgspec

from juinie_shared.db.event_json import EVENT_JSON
from juinie_shared.db.pool import Pool
from juinie_shared.domain.errors import DatabaseBusy
from juinie_shared.domain.ids import KeyId, RunId, Seq, TenantId
from juinie_shared.domain.runs import RunStatus
from juinie_shared.runtime.deadlines import Deadlines
from juinie_shared.runtime.together import Together

FIND_RUNS = """
    SELECT run_id, tenant_id, last_seq, status, retained_from_seq
    FROM unnest($1::uuid[], $2::uuid[]) AS asked (run_id, tenant_id) JOIN run USING (run_id, tenant_id)
    WHERE deleted_at IS NULL
"""
"""By run_pkey, each. Another tenant's run is not found, as one that never was."""

READ_RUNS = """
    SELECT run_id, last_seq, status, retained_from_seq FROM run
    WHERE run_id = ANY($1::uuid[]) AND deleted_at IS NULL
"""
"""By run_pkey: one query for all open streams."""

EVENT_FRAME = rf"""'data: ' || {EVENT_JSON} || E'\nid: ' || e.seq || E'\n\n'"""
"""SQL: an event's frame as text, as `contracts/sse.py` has it. The row of run_event is called `e`."""

FRAME_BYTES = 112
"""What a frame has around an event's type and data, at most, with its seq twice."""

_OF_EVENT = f"(octet_length(data) + octet_length(type) + {FRAME_BYTES})"

READ_PAGES = f"""
    SELECT run.run_id, asked.after_seq, run.last_seq, run.status, run.retained_from_seq, page.seqs, page.types, page.frames
    FROM unnest($1::uuid[], $2::bigint[]) AS asked (run_id, after_seq)
    JOIN run ON run.run_id = asked.run_id AND run.deleted_at IS NULL
    CROSS JOIN LATERAL (
        SELECT array_agg(seq) AS seqs, array_agg(type) AS types, array_agg(convert_to({EVENT_FRAME}, 'UTF8')) AS frames
        FROM (
            SELECT e.*, sum({_OF_EVENT}) OVER (ORDER BY seq ROWS UNBOUNDED PRECEDING) AS bytes
            FROM (
                SELECT seq, type, data, occurred_at FROM run_event
                WHERE run_id = asked.run_id AND seq > asked.after_seq ORDER BY seq LIMIT $3
            ) AS e
        ) AS e
        WHERE e.bytes <= $4 OR e.bytes = {_OF_EVENT}
    ) AS page
"""  # noqa: S608 - what is put in are constants of ours
"""By run_event_pkey, never more than a page of each, but its first event however large: it alone is as large as all up to it. A run's
row comes from the same snapshot: what it says of last_seq and status holds for these events. A run without events after its $2 gives its
row alone. The window's order is the arrays'."""

VALID_KEYS = """
    SELECT key_id FROM api_key
    WHERE key_id = ANY($1::uuid[]) AND revoked_at IS NULL AND (expires_at IS NULL OR expires_at > clock_timestamp())
"""


FINDING_AT_ONCE = 2
"""Reads that look for runs. Each takes all who came during the one before."""
MOST_RUNS = 500
"""Found by one read."""
MOST_PAGES = 16
"""Read by one, and in memory at once."""

START_OF_RUN = Seq(1)


class RunRow(msgspec.Struct, frozen=True):
    """What a run's row says at one moment."""

    last_seq: Seq
    status: RunStatus
    retained_from_seq: Seq = START_OF_RUN

    @property
    def finished(self) -> bool:
        """A finished run never changes: `last_seq` is its last for ever."""
        return self.status.terminal


class Event(msgspec.Struct, frozen=True, gc=False):
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
    """Reads for streams: what is asked while others are answered is read together. `concurrency`: so many reads of pages are under
    way at once, so that a storm of watchers is a queue and not a stampede. `wait_seconds`: how long one waits in it.
    """

    def __init__(
        self, pool: Pool, limits: PageLimits | None = None, concurrency: int = 4, wait_seconds: float = 5.0
    ) -> None:
        self._pool = pool
        self._limits = limits or PageLimits()
        patience = Deadlines(wait_seconds, late=DatabaseBusy)
        self._found = Together(self._find_runs, FINDING_AT_ONCE, MOST_RUNS, patience)
        self._pages = Together(self._read_pages, concurrency, MOST_PAGES, patience)

    def find_run(self, run_id: RunId, tenant_id: TenantId) -> Awaitable[RunRow | None]:
        """The run's row; None when this tenant has no such run. Raises DatabaseBusy when others were answered all the time."""
        return self._found.ask((run_id, tenant_id))

    def read_page(self, run_id: RunId, after_seq: Seq) -> Awaitable[Page | None]:
        """The next events after `after_seq`; None when the run is gone. Raises likewise."""
        return self._pages.ask((run_id, after_seq))

    def read_page_soon(self, run_id: RunId, after_seq: Seq) -> Awaitable[Page | None]:
        """As `read_page`, for who is live: every other read is for those who ask so, whatever comes back at once."""
        return self._pages.ask((run_id, after_seq), soon=True)

    async def read_runs(self, run_ids: Collection[RunId]) -> dict[RunId, RunRow | None]:
        """The rows of these runs; those that are gone are left out, and None stands for one that says what this version does not
        know. Waits for nobody: it keeps open streams true.
        """
        async with self._pool.connection() as connection:
            rows = await connection.fetch(READ_RUNS, list(run_ids))
        return {RunId(row["run_id"]): _known_row(row) for row in rows}

    async def valid_keys(self, key_ids: Collection[KeyId]) -> set[KeyId]:
        """Those of these keys that are neither revoked nor expired."""
        async with self._pool.connection() as connection:
            rows = await connection.fetch(VALID_KEYS, list(key_ids))
        return {KeyId(row["key_id"]) for row in rows}

    async def _find_runs(
        self, asked: Sequence[tuple[RunId, TenantId]]
    ) -> dict[tuple[RunId, TenantId], RunRow]:
        async with self._pool.connection() as connection:
            rows = await connection.fetch(FIND_RUNS, *_columns(asked))
        return {(RunId(row["run_id"]), TenantId(row["tenant_id"])): _run_row(row) for row in rows}

    async def _read_pages(self, asked: Sequence[tuple[RunId, Seq]]) -> dict[tuple[RunId, Seq], Page]:
        async with self._pool.connection() as connection:
            rows = await connection.fetch(
                READ_PAGES, *_columns(asked), self._limits.events, self._limits.bytes
            )
        return {
            (RunId(row["run_id"]), Seq(row["after_seq"])): Page(_run_row(row), _events(row)) for row in rows
        }


def _columns(asked: Sequence[tuple[Any, Any]]) -> tuple[list[Any], list[Any]]:
    return [first for first, _ in asked], [second for _, second in asked]


def _run_row(row: Mapping[str, Any]) -> RunRow:
    return RunRow(Seq(row["last_seq"]), RunStatus(row["status"]), Seq(row["retained_from_seq"]))


def _known_row(row: Mapping[str, Any]) -> RunRow | None:
    try:
        return _run_row(row)
    except ValueError:
        return None


def _events(row: Mapping[str, Any]) -> tuple[Event, ...]:
    if row["seqs"] is None:
        return ()
    return tuple(starmap(Event, zip(row["seqs"], row["types"], row["frames"], strict=True)))
