"""Dead letters: what could not be sent to Kafka waits here until somebody decides."""

from dataclasses import dataclass
from datetime import datetime

from juinie_api.store import outbox
from juinie_shared.db.pool import Pool, Row
from juinie_shared.domain.errors import DeadLetterNotFound
from juinie_shared.domain.ids import RunId, Seq, TenantId


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """Seqs of a run that could not be sent, and why."""

    id: int
    run_id: RunId
    first_seq: Seq
    last_seq: Seq
    reason: str
    created_at: datetime


@dataclass(frozen=True, slots=True)
class DeadLetterPage:
    """The newest first. `more`: there are older ones."""

    letters: list[DeadLetter]
    more: bool


async def list_dead_letters(
    pool: Pool, tenant_id: TenantId, before_id: int | None, limit: int
) -> DeadLetterPage:
    """One page. One row more than asked for tells whether there is another page."""
    async with pool.connection() as connection:
        rows = await connection.fetch(outbox.DEAD_LETTERS, tenant_id, before_id, limit + 1)
    return DeadLetterPage([_letter(row) for row in rows[:limit]], more=len(rows) > limit)


async def requeue(pool: Pool, tenant_id: TenantId, letter_id: int) -> DeadLetter:
    """Put it back into the outbox, behind what is there: it will be tried again, and may come back as another one.

    Raises:
        DeadLetterNotFound: there is none, or it is another tenant's, or somebody was faster.
    """
    return await _take(pool, outbox.REQUEUE, tenant_id, letter_id)


async def discard(pool: Pool, tenant_id: TenantId, letter_id: int) -> DeadLetter:
    """Forget it: Kafka never gets it. Its event stays, and watchers have it. Raises as `requeue`."""
    return await _take(pool, outbox.DISCARD, tenant_id, letter_id)


async def _take(pool: Pool, statement: str, tenant_id: TenantId, letter_id: int) -> DeadLetter:
    async with pool.connection() as connection:
        row = await connection.fetchrow(statement, letter_id, tenant_id)
    if row is None:
        raise DeadLetterNotFound
    return _letter(row)


def _letter(row: Row) -> DeadLetter:
    return DeadLetter(**row)
