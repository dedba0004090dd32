"""Outbox rows: fetched, deleted, counted.

The invariant that the relay builds on: a fetch is a prefix of every run. A run's rows are in one shard for ever,
their ids are taken under the run's row lock and held to commit, so a snapshot that shows one row shows all earlier
ones of its run; and `FETCH` cuts only at the end of the id order.
"""

import time
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from uuid import UUID

import msgspec

from juinie_shared.contracts.rendered_record import RenderedRecord, RunBytes
from juinie_shared.db.event_json import EVENT_JSON
from juinie_shared.db.plans import ALONG_INDEXES
from juinie_shared.db.pool import Pool, Row
from juinie_shared.domain.ids import RunId, Seq


def _fetch(due: str) -> str:
    """Of these rows, in id order, those that are within $1 rows, $2 bytes and $3 records, with their events; at least one.

    A row's only event is not put into an array, and its run is told as bytes: both are cheaper to read.
    """
    return f"""
    WITH due AS MATERIALIZED ({due} ORDER BY id LIMIT $1::integer + 1),
    measured AS MATERIALIZED (
        SELECT due.*, row_number() OVER so_far AS place, sum(bytes) OVER so_far AS bytes_so_far,
               sum((last_seq - first_seq + 1)::integer) OVER so_far AS records_so_far
        FROM due WINDOW so_far AS (ORDER BY id ROWS UNBOUNDED PRECEDING)
    )
    SELECT d.id, d.shard, uuid_send(d.run_id) AS run, d.first_seq, d.last_seq, d.traceparent,
           date_part('epoch', clock_timestamp() - d.created_at) AS age_seconds,
           CASE WHEN d.place = 1 THEN (SELECT count(*) FROM due) END AS due,
           CASE WHEN d.first_seq = d.last_seq THEN (
               SELECT {EVENT_JSON} FROM run_event AS e WHERE e.run_id = d.run_id AND e.seq = d.first_seq
           ) END AS event,
           CASE WHEN d.first_seq < d.last_seq THEN ARRAY(
               SELECT {EVENT_JSON} FROM run_event AS e
               WHERE e.run_id = d.run_id AND e.seq BETWEEN d.first_seq AND d.last_seq ORDER BY e.seq
           ) END AS events
    FROM measured AS d
    WHERE d.place = 1 OR (d.place <= $1 AND d.bytes_so_far <= $2 AND d.records_so_far <= $3)
    ORDER BY d.id
    """  # noqa: S608 - constants of ours


FETCH = _fetch("""
    SELECT o.* FROM unnest($4::smallint[]) AS s (shard)
    CROSS JOIN LATERAL (
        SELECT * FROM outbox WHERE outbox.shard BETWEEN s.shard AND s.shard
            AND run_id NOT IN (SELECT unnest($6::uuid[]))
        ORDER BY shard, id LIMIT $5
    ) AS o
""")
"""The oldest rows of the shards $4 but for the runs $6, at most $5 a shard.

The runs are looked up by hash: `<> ALL` would compare each row that is passed over with all of them.

No `=` for the shard: with that, the order of the primary key would do too, and a shard of few rows, so read, is the whole outbox.

No lock: whoever else fetches the same rows only sends them twice. Indexes: outbox (shard, id), run_event (run_id,
seq), as long as nothing else may be used. It is planned once (`ONE_PLAN`), in sessions that do nothing else, as it has the same plan
however long the outbox is: one index gives the order that is asked for, and all others want a sort besides. A delete has no order, and
no such plan.
"""

FETCH_OLDEST = _fetch("SELECT * FROM outbox")
"""The oldest rows of all shards: none is looked at in vain. No lock. Indexes: the primary key, and run_event (run_id, seq)."""

TENANTS = "SELECT run_id, tenant_id FROM run WHERE run_id = ANY($1::uuid[])"
"""Whose these runs are. By primary key. A run never changes hands, so it is asked once, and not of every row."""

MOST_RUNS_KNOWN = 20_000
"""Of so many runs it is remembered, with the bytes that their records have in common. Then all are asked for again."""

PLANNING = {"plan_cache_mode": "force_custom_plan"}
"""What all sessions of the publisher set, but for those that fetch. A plan that was made while a table was empty may read all of
it, once it is long: seconds a statement, until statistics come. A plan of its own knows the table's size."""

BY_INDEX = PLANNING | ALONG_INDEXES
"""What the relay's sessions set, so that rows are read along the indexes, and no further than is asked for. Without
statistics, all rows of a shard by bitmap, sorted, look as good as its first 64, and so do the events of a row."""

DELETE = """
    WITH relaxed AS MATERIALIZED (SELECT set_config('synchronous_commit', 'off', true))
    DELETE FROM outbox USING relaxed WHERE id = ANY($1::bigint[])
"""
"""Rows that Kafka has. By primary key. Not waiting for the disk: a delete that a crash undoes is sent again."""

DELETE_RANGES = """
    WITH relaxed AS MATERIALIZED (SELECT set_config('synchronous_commit', 'off', true))
    DELETE FROM outbox USING relaxed, unnest($1::bigint[], $2::bigint[]) AS acked (first, last)
    WHERE id BETWEEN first AND last
"""
"""The same for ids without a gap: what is between the first and the last of a range is all of it Kafka's."""

IDS_A_RANGE = 4
"""Where ranges are shorter on average, as among several publishers, single ids are cheaper."""

BACKLOG = """
    SELECT count(*) AS pending,
           coalesce(extract(epoch FROM clock_timestamp() - min(created_at)), 0)::float8 AS oldest_age_seconds,
           (SELECT count(*) FROM dead_letter) AS dead_letters
    FROM outbox
"""


class PendingRow(msgspec.Struct, frozen=True, gc=False):
    """An outbox row with the records of its range. `age_seconds`: since its append, when it was fetched."""

    id: int
    shard: int
    run_id: RunId
    first_seq: Seq
    last_seq: Seq
    traceparent: str | None
    age_seconds: float
    records: Sequence[RenderedRecord]

    @property
    def events_missing(self) -> int:
        """Events of the range that are in the database no more: their run was purged."""
        return self.last_seq - self.first_seq + 1 - len(self.records)


@dataclass(frozen=True, slots=True)
class Window:
    """What one fetch gave, in id order. `full`: more was waiting. `fetched_at`: of `time.monotonic()`."""

    rows: Sequence[PendingRow]
    full: bool
    fetched_at: float


@dataclass(frozen=True, slots=True)
class WindowLimits:
    """How much one fetch may give."""

    rows: int = 2000
    rows_a_shard: int = 64
    bytes: int = 4 * 1024 * 1024
    records: int = 10_000


@dataclass(frozen=True, slots=True)
class Backlog:
    """What waits in the outbox, and how many dead letters lie beside it."""

    pending: int
    oldest_age_seconds: float
    dead_letters: int = 0


class OutboxStore:
    """The outbox. Every method is one short transaction."""

    def __init__(self, pool: Pool, fetching: Pool | None = None) -> None:
        """`fetching`: the sessions that fetch, where they are not the same as for all else."""
        self._pool = pool
        self._fetching = fetching or pool
        self._runs: dict[bytes, RunBytes] = {}

    async def fetch(
        self, shards: Iterable[int], limits: WindowLimits, without: Collection[RunId] = ()
    ) -> Window:
        """The oldest rows of these shards, so many of each: nothing of the runs `without`, of each other run a prefix of what is left."""
        window = await self._fetch(FETCH, limits, list(shards), limits.rows_a_shard, list(without))
        of_a_shard = Counter([row.shard for row in window.rows]).values()
        return replace(window, full=window.full or max(of_a_shard, default=0) >= limits.rows_a_shard)

    async def fetch_oldest(self, limits: WindowLimits) -> Window:
        """The oldest rows of all: of each run a prefix."""
        return await self._fetch(FETCH_OLDEST, limits)

    async def _fetch(self, statement: str, limits: WindowLimits, *asked: object) -> Window:
        async with self._fetching.connection() as connection:
            rows = await connection.fetch(statement, limits.rows, limits.bytes, limits.records, *asked)
        await self._learn_runs(rows)
        pending = [_pending_row(row, self._runs) for row in rows]
        return Window(pending, bool(rows) and rows[0]["due"] > len(rows), time.monotonic())

    async def delete(self, ids: Sequence[int]) -> None:
        """Forget rows that Kafka has acknowledged. Rows that are gone already are no fault."""
        if not ids:
            return
        firsts, lasts = _ranges(ids)
        async with self._pool.connection() as connection:
            if len(firsts) * IDS_A_RANGE <= len(ids):
                await connection.execute(DELETE_RANGES, firsts, lasts)
            else:
                await connection.execute(DELETE, ids)

    async def _learn_runs(self, rows: Iterable[Row]) -> None:
        """Ask whose the runs of these rows are, where it is not known yet."""
        runs = {row["run"] for row in rows}
        unknown = runs - self._runs.keys()
        if unknown and len(self._runs) + len(unknown) > MOST_RUNS_KNOWN:
            self._runs.clear()
            unknown = runs
        if unknown:
            async with self._pool.connection() as connection:
                found = await connection.fetch(TENANTS, [UUID(bytes=run) for run in unknown])
            self._runs.update(
                (row["run_id"].bytes, RunBytes.of(row["run_id"], row["tenant_id"])) for row in found
            )

    async def backlog(self) -> Backlog:
        async with self._pool.connection() as connection:
            row = await connection.fetchrow(BACKLOG)
        return Backlog(**row) if row else Backlog(0, 0.0)


def _pending_row(row: Row, runs: Mapping[bytes, RunBytes]) -> PendingRow:
    """Without records where the run is gone: without its tenant nothing can be said of it."""
    row_id, shard, run, first_seq, last_seq, traceparent, age_seconds, _, event, events = row.values()
    known = runs.get(run)
    if known is None:
        return PendingRow(
            row_id, shard, RunId(UUID(bytes=run)), first_seq, last_seq, traceparent, age_seconds, []
        )
    if event is not None:
        records = [RenderedRecord(known, event, traceparent)]
    else:
        records = [RenderedRecord(known, each, traceparent) for each in events or ()]
    return PendingRow(row_id, shard, known.run_id, first_seq, last_seq, traceparent, age_seconds, records)


def _ranges(ids: Iterable[int]) -> tuple[list[int], list[int]]:
    """The first and the last of each series of these ids that has no gap."""
    firsts, lasts = list[int](), list[int]()
    expected = None
    for each in sorted(ids):
        if each == expected:
            lasts[-1] = each
        else:
            firsts.append(each)
            lasts.append(each)
        expected = each + 1
    return firsts, lasts
