"""Send events to Kafka once more: of a run, or of all runs that were created within a time.

They become outbox rows like any other, written in many small statements, so that no append waits for them, and a statement
only when the rows of the one before have nearly all been sent: what is new goes on reaching Kafka in between. What is written
before something fails stays: asking again only sends some of it twice.
"""

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from juinie_api.core import patience
from juinie_api.core.lanes import RunLanes
from juinie_api.core.tenant_pools import TenantPools
from juinie_api.store import outbox
from juinie_shared.db.pool import Row
from juinie_shared.domain.errors import RunNotFound
from juinie_shared.domain.ids import RunId, TenantId

STATEMENT_SEQS = 5_000
ROW_EVENTS = 500
ROW_BYTES = 1024 * 1024
PAGE_RUNS = 500
DEEP_EVENTS = STATEMENT_SEQS
DEEP_BYTES = 64 * ROW_BYTES
"""With so much in the outbox nothing more is written into it, unless the relay is paused: then all of it waits anyway."""
ROOM_SECONDS = 0.2
"""So often is looked whether there is room."""
_FIRST_ID = UUID(int=0)


@dataclass(frozen=True, slots=True)
class Span:
    """Seqs of a run, both ends included."""

    run_id: RunId
    first_seq: int
    last_seq: int


class Republisher:
    """For one tenant and one request. `traceparent`: of that request, which the records carry. `wake`: the publisher.

    `stay` raises once nobody waits for the answer any more, or may have it, or this server stops; nothing more is written then.
    """

    def __init__(
        self,
        pools: TenantPools,
        lanes: RunLanes,
        tenant_id: TenantId,
        traceparent: str | None,
        wake: Callable[[], None],
        stay: Callable[[], Awaitable[None]],
    ) -> None:
        self._pools, self._lanes = pools, lanes
        self._tenant_id = tenant_id
        self._traceparent = traceparent
        self._wake, self._stay = wake, stay
        self._has_written = False

    async def run(self, run_id: RunId, from_seq: int, to_seq: int) -> int:
        """The events of a run from one seq to another, as far as they are kept. Gives how many.

        Raises:
            RunNotFound: there is none, or it is another tenant's, or it is deleted.
        """
        async with self._pools.of(self._tenant_id).connection() as connection:
            row = await connection.fetchrow(outbox.READ_SPAN, run_id, self._tenant_id)
        if row is None:
            raise RunNotFound
        kept = _span(row)
        return await self._write([Span(run_id, max(from_seq, kept.first_seq), min(to_seq, kept.last_seq))])

    async def created(self, after: datetime, before: datetime) -> int:
        """All kept events of the runs that were created after one moment and before another. Gives how many."""
        records, last, last_id = 0, after, _FIRST_ID
        while True:
            patience.begin_again()
            async with self._pools.of(self._tenant_id).connection() as connection:
                rows = await connection.fetch(
                    outbox.READ_SPANS, self._tenant_id, after, before, last, last_id, PAGE_RUNS
                )
            records += await self._write(_span(row) for row in rows)
            if len(rows) < PAGE_RUNS:
                return records
            last, last_id = rows[-1]["created_at"], rows[-1]["run_id"]

    async def _write(self, spans: Iterable[Span]) -> int:
        records = 0
        for batch in batches(spans, STATEMENT_SEQS):
            await self._room()
            patience.begin_again()
            records += await self._insert(batch)
            self._wake()
        return records

    async def _room(self) -> None:
        """Wait while the outbox is deep, except for the first statement: a few events always go."""
        await self._stay()
        while self._has_written and await self._is_deep():
            await asyncio.sleep(ROOM_SECONDS)
            patience.begin_again()
            await self._stay()
        self._has_written = True

    async def _is_deep(self) -> bool:
        patience.begin_again()  # what was written before, and whether it may go on, is none of this
        async with self._pools.of(self._tenant_id).connection() as connection:
            return await connection.fetchval(outbox.IS_DEEP, DEEP_EVENTS, DEEP_BYTES)

    async def _insert(self, batch: Sequence[Span]) -> int:
        """In the lane of one of its runs: the only one, or the first of those that others may ask for at the same time."""
        async with (
            self._lanes.turn(self._tenant_id, batch[0].run_id) as turn,
            self._pools.of(self._tenant_id, turn.seconds_left()).connection() as connection,
        ):
            return await connection.fetchval(
                outbox.REPUBLISH,
                [span.run_id for span in batch],
                [span.first_seq for span in batch],
                [span.last_seq for span in batch],
                self._tenant_id, self._traceparent, ROW_EVENTS, ROW_BYTES,
            )  # fmt: skip


def batches(spans: Iterable[Span], most: int) -> Iterator[list[Span]]:
    """The same seqs in the same order, at most so many in each list: long spans are cut, empty ones left out."""
    batch, room = list[Span](), most
    for span in spans:
        first = span.first_seq
        while first <= span.last_seq:
            last = min(span.last_seq, first + room - 1)
            batch.append(Span(span.run_id, first, last))
            room -= last - first + 1
            first = last + 1
            if not room:
                yield batch
                batch, room = [], most
    if batch:
        yield batch


def _span(row: Row) -> Span:
    return Span(row["run_id"], row["first_seq"], row["last_seq"])
