"""Dead letters: parked, and those whose record is still to be written to their topic."""

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass

from juinie_shared.contracts.record import RunEventRecord
from juinie_shared.db.event_json import EVENT_JSON, EVENT_TIME
from juinie_shared.db.pool import Pool, Row
from juinie_shared.domain.ids import RunId, Seq, TenantId

PARK = """
    WITH shortened AS (
        UPDATE outbox SET first_seq = $2 + 1 WHERE id = $1 AND first_seq <= $2 AND last_seq > $2
        RETURNING run_id, shard, traceparent
    ),
    emptied AS (
        DELETE FROM outbox WHERE id = $1 AND first_seq <= $2 AND last_seq = $2 RETURNING run_id, shard, traceparent
    ),
    parked AS (SELECT * FROM shortened UNION ALL SELECT * FROM emptied)
    INSERT INTO dead_letter (tenant_id, run_id, first_seq, last_seq, shard, reason, traceparent)
    SELECT run.tenant_id, run_id, $2, $2, parked.shard, $3, parked.traceparent FROM parked JOIN run USING (run_id)
"""
"""Take the seq $2 out of the outbox row $1, whose earlier seqs Kafka has, and set it aside with the reason $3.

The rest keeps the row's id, and so its place before what was appended later. The row's lock lets one publisher park a
seq: who comes second finds it gone. By primary keys.
"""

UNRECORDED = f"""
    SELECT d.id, d.run_id, d.tenant_id, d.reason, d.traceparent,
           e.seq, e.type, {EVENT_TIME} AS time, {EVENT_JSON} AS json
    FROM (
        SELECT * FROM dead_letter
        WHERE recorded_at IS NULL AND shard = ANY($1::smallint[]) AND id <> ALL($3::bigint[])
        ORDER BY id LIMIT $2
    ) AS d
    JOIN run_event AS e ON e.run_id = d.run_id AND e.seq = d.first_seq
    ORDER BY d.id
"""  # noqa: S608 - two constants of ours
"""The oldest dead letters of the shards $1 that their topic does not have, but for $3. Index: dead_letter_unrecorded_idx."""

RECORDED = "UPDATE dead_letter SET recorded_at = clock_timestamp() WHERE id = ANY($1::bigint[])"


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """A run event that could not be sent, and why."""

    id: int
    event: RunEventRecord
    reason: str


class DeadLetterStore:
    """The dead letters. Every method is one short transaction."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool

    async def park(self, row_id: int, seq: Seq, reason: str) -> bool:
        """Set the first unsent seq of an outbox row aside. Gives whether it was there."""
        async with self._pool.connection() as connection:
            return await connection.execute(PARK, row_id, seq, reason) == "INSERT 0 1"

    async def unrecorded(
        self, shards: Iterable[int], limit: int, without: Collection[int] = ()
    ) -> Sequence[DeadLetter]:
        """The oldest dead letters of these shards whose record is not written, leaving out the ids `without`."""
        async with self._pool.connection() as connection:
            rows = await connection.fetch(UNRECORDED, list(shards), limit, list(without))
        return [DeadLetter(row["id"], _event(row), row["reason"]) for row in rows]

    async def recorded(self, ids: Sequence[int]) -> None:
        """Note that the records of these are written."""
        async with self._pool.connection() as connection:
            await connection.execute(RECORDED, ids)


def _event(row: Row) -> RunEventRecord:
    return RunEventRecord(
        RunId(row["run_id"]), TenantId(row["tenant_id"]), Seq(row["seq"]), row["type"], row["time"],
        row["json"].encode(), row["traceparent"],
    )  # fmt: skip
