"""Duties as lease rows: who has which, until when. All times are the database's.

A duty belongs to who holds its row's lease, or to nobody. Every publisher renews its own by `SHARE_OUT`, which also
takes what is free and gives back what is more than its share; so the statement that renews is the one that balances.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from uuid import UUID

from juinie_shared.contracts.names import DUTIES_CHANNEL
from juinie_shared.db.pool import Pool, Row

SHARE_OUT = """
    WITH member AS (
        INSERT INTO publisher AS p (publisher_id, name, seen_at) VALUES ($1, $2, now())
        ON CONFLICT (publisher_id) DO UPDATE SET seen_at = now()
    ),
    forgotten AS (
        DELETE FROM publisher WHERE publisher_id IN (
            SELECT publisher_id FROM publisher
            WHERE publisher_id <> $1 AND seen_at < now() - interval '1 hour' FOR UPDATE SKIP LOCKED
        )
    ),
    share AS (
        SELECT ceil((SELECT count(*) FROM duty WHERE shard IS NOT NULL) / (1.0 + count(*)))::integer AS shards
        FROM publisher WHERE publisher_id <> $1 AND seen_at > now() - $3::interval
    ),
    mine AS MATERIALIZED (
        SELECT name, shard FROM duty WHERE publisher_id = $1 FOR UPDATE SKIP LOCKED
    ),
    shards_taken AS MATERIALIZED (
        SELECT name FROM duty
        WHERE shard IS NOT NULL AND publisher_id IS DISTINCT FROM $1 AND (publisher_id IS NULL OR expires_at <= now())
        ORDER BY random()
        LIMIT greatest(0, (SELECT shards FROM share) - (SELECT count(*) FROM mine WHERE shard IS NOT NULL))
        FOR UPDATE SKIP LOCKED
    ),
    others_taken AS MATERIALIZED (
        SELECT name FROM duty
        WHERE shard IS NULL AND publisher_id IS DISTINCT FROM $1 AND (publisher_id IS NULL OR expires_at <= now())
        FOR UPDATE SKIP LOCKED
    ),
    settled AS (
        SELECT name, shard IS NULL OR row_number() OVER (PARTITION BY shard IS NULL ORDER BY shard) <= shards AS stays
        FROM mine, share
        UNION ALL SELECT name, true FROM shards_taken
        UNION ALL SELECT name, true FROM others_taken
    )
    UPDATE duty SET publisher_id = CASE WHEN settled.stays THEN $1 END,
                    expires_at = CASE WHEN settled.stays THEN now() + $3::interval END
    FROM settled WHERE duty.name = settled.name
    RETURNING duty.name, duty.shard, settled.stays
"""
"""Be a member, renew what the publisher $1 holds, take what is free up to its share, and give back what is beyond it.

The share: all shards by the number of publishers seen within the lease $3, rounded up. A duty without shard is taken by
whoever comes first. Locks only duty rows, and skips those that another publisher is taking: so it waits for nobody,
and what it skips of its own is lost. `now()`: the lease begins before the statement does anything. Reads all of both
tables, which stay small.
"""

PAUSED = "SELECT paused_at IS NOT NULL FROM relay_state"

GIVE_BACK = """
    WITH gone AS (DELETE FROM publisher WHERE publisher_id = $1)
    UPDATE duty SET publisher_id = NULL, expires_at = NULL WHERE publisher_id = $1
"""

WAKE = f"NOTIFY {DUTIES_CHANNEL}"


@dataclass(frozen=True, slots=True)
class Share:
    """What one turn gave: the duties held now by name, those of them that are shards, and those given back.

    `paused`: an operator has paused the relay. What is held stays so.
    """

    held: frozenset[str]
    shards: frozenset[int]
    given_back: frozenset[str]
    paused: bool = False


class DutyStore:
    """The duties, as the publisher `publisher_id` shares in them. Every method is one short transaction."""

    def __init__(self, pool: Pool, publisher_id: UUID, name: str) -> None:
        self._pool = pool
        self._publisher_id = publisher_id
        self._name = name

    async def share_out(self, lease_seconds: float) -> Share:
        """Renew, take and give back, for so long from now on."""
        async with self._pool.connection() as connection:
            lease = timedelta(seconds=lease_seconds)
            rows = await connection.fetch(SHARE_OUT, self._publisher_id, self._name, lease)
            paused: bool = await connection.fetchval(PAUSED)
        return _share(rows, paused)

    async def give_all_back(self) -> None:
        """Leave: hold nothing, be no member."""
        async with self._pool.connection() as connection:
            await connection.execute(GIVE_BACK, self._publisher_id)

    async def wake_others(self) -> None:
        """Tell the other publishers that there is something to share out. Theirs comes round anyway, only later."""
        async with self._pool.connection() as connection:
            await connection.execute(WAKE)


def _share(rows: Sequence[Row], paused: bool) -> Share:
    kept = [row for row in rows if row["stays"]]
    shards = frozenset(row["shard"] for row in kept if row["shard"] is not None)
    return Share(_names(kept), shards, _names(row for row in rows if not row["stays"]), paused)


def _names(rows: Iterable[Row]) -> frozenset[str]:
    return frozenset(row["name"] for row in rows)
