"""The outbox of the whole installation: how deep it is, and the switch that pauses the relay.

Pausing stops relaying, and nothing else: appends and streams go on, and rows wait. It is a row, so it outlasts every
restart; publishers feel it within two seconds.
"""

from dataclasses import dataclass

from juinie_api.store import outbox
from juinie_shared.db.pool import Connection, Pool

COUNTED_ROWS = 10_000
"""So many rows of a shard are counted; how many there are beyond is estimated."""


@dataclass(frozen=True, slots=True)
class ShardDepth:
    """One shard: rows that wait, the age of the oldest (0 when there is none), and who relays it, if anybody does."""

    shard: int
    pending: int
    oldest_age_seconds: float
    publisher: str | None


@dataclass(frozen=True, slots=True)
class OutboxDepth:
    """All shards, in order."""

    paused: bool
    shards: list[ShardDepth]

    @property
    def pending(self) -> int:
        return sum(shard.pending for shard in self.shards)

    @property
    def oldest_age_seconds(self) -> float:
        return max((shard.oldest_age_seconds for shard in self.shards), default=0.0)


async def read_depth(pool: Pool) -> OutboxDepth:
    async with pool.connection() as connection:
        return await _depth(connection)


async def set_paused(pool: Pool, paused: bool) -> OutboxDepth:
    """Pause the relay or let it go on. Doing so again changes nothing."""
    async with pool.connection() as connection:
        await connection.execute(outbox.PAUSE if paused else outbox.RESUME)
        await connection.execute(outbox.WAKE_PUBLISHERS)
        return await _depth(connection)


async def _depth(connection: Connection) -> OutboxDepth:
    async with connection.transaction():
        await connection.execute(outbox.BY_INDEX_ALONE)
        paused = await connection.fetchval(outbox.IS_PAUSED)
        shards = await connection.fetch(outbox.DEPTH, COUNTED_ROWS)
    return OutboxDepth(paused, [ShardDepth(**row) for row in shards])
