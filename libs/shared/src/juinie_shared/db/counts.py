"""Counts that processes share: what each has counted, so that all know the sum within a second.

Rows are worth nothing after a crash, so the table is unlogged. A row that its process no longer renews counts no
more: a process that died holds nothing for longer than `STALE_SECONDS`, by the database's clock.
"""

from collections.abc import Mapping
from uuid import UUID

from juinie_shared.db.pool import Connection

STALE_SECONDS = 15

# A process writes its own rows alone, by shared_count_pkey, so no two processes wait for each other. No other index:
# updates stay HOT. What the other processes have comes from a snapshot before this write, which holds none of theirs.
_EXCHANGE = f"""
    WITH mine AS MATERIALIZED (
        SELECT counter, amount FROM unnest($2::text[], $3::bigint[]) AS mine (counter, amount)
    ), written AS (
        INSERT INTO shared_count (counter, process_id, amount, seen_at)
        SELECT counter, $1::uuid, amount, clock_timestamp() FROM mine
        ON CONFLICT (counter, process_id) DO UPDATE SET amount = EXCLUDED.amount, seen_at = EXCLUDED.seen_at
    )
    SELECT mine.counter, extract(epoch FROM clock_timestamp())::float8 AS now, (
        SELECT coalesce(sum(other.amount), 0)::bigint FROM shared_count AS other
        WHERE other.counter = mine.counter AND other.process_id <> $1
            AND other.seen_at > clock_timestamp() - interval '{STALE_SECONDS} seconds'
    ) AS others
    FROM mine
"""  # noqa: S608 - made of constants

# Reads the whole table, which is small. Rows that another process sweeps just now are left to it.
_SWEEP = f"""
    DELETE FROM shared_count WHERE (counter, process_id) IN (
        SELECT counter, process_id FROM shared_count
        WHERE seen_at < clock_timestamp() - interval '{4 * STALE_SECONDS} seconds'
        LIMIT 10000 FOR UPDATE SKIP LOCKED
    )
"""  # noqa: S608 - made of constants

_LEAVE = "DELETE FROM shared_count WHERE process_id = $1"


async def exchange(
    connection: Connection, process_id: UUID, counts: Mapping[str, int]
) -> tuple[dict[str, int], float]:
    """Write what this process has counted. Gives what the others have, by counter, and the database's time."""
    rows = await connection.fetch(_EXCHANGE, process_id, list(counts), list(counts.values()))
    return {row["counter"]: row["others"] for row in rows}, rows[0]["now"]


async def sweep(connection: Connection) -> None:
    """Remove what nobody has renewed for long."""
    await connection.execute(_SWEEP)


async def leave(connection: Connection, process_id: UUID) -> None:
    """A process that stops gives back all that it has counted."""
    await connection.execute(_LEAVE, process_id)
