"""Waits for tests: on signals that are stored or sent, never on time. Each says what was missing when its time is up."""

import asyncio
import inspect
import time
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING
from uuid import UUID

from juinie_shared.db.pool import Pool

if TYPE_CHECKING:
    from juinie_testkit.watcher import Watcher

_LOOK_EVERY_SECONDS = 0.02

_UNSENT = """
    SELECT first_seq, last_seq, extract(epoch FROM clock_timestamp() - created_at)::float AS age_seconds
    FROM outbox WHERE run_id = $1 ORDER BY id
"""

_LAST_SEQ = "SELECT last_seq FROM run WHERE run_id = $1"


class StillMissing(AssertionError):
    """What a test waited for did not come in time. The message says what was missing."""


async def eventually[T](probe: Callable[[], T | Awaitable[T]], timeout_seconds: float, what: str) -> T:
    """Ask `probe` (plain or async) until its answer is true, and give that answer.

    Raises:
        StillMissing: it was not within `timeout_seconds`; the message has `what` and the last answer.
    """
    deadline = time.monotonic() + timeout_seconds
    while True:
        answer = probe()
        value: T = await answer if inspect.isawaitable(answer) else answer  # pyright: ignore[reportAssignmentType]
        if value:
            return value
        if time.monotonic() > deadline:
            raise StillMissing(f"After {timeout_seconds:g} s still not: {what}. The last answer: {value!r}.")
        await asyncio.sleep(_LOOK_EVERY_SECONDS)


async def await_outbox_flush(pool: Pool, run_id: UUID, timeout_seconds: float = 30) -> None:
    """Wait until nothing of the run is left in the outbox: all of it has been acknowledged by Kafka.

    Raises:
        StillMissing: rows are left; the message says which seqs, and how old they are.
    """
    deadline = time.monotonic() + timeout_seconds
    while unsent := await _unsent(pool, run_id):
        if time.monotonic() > deadline:
            raise StillMissing(
                f"After {timeout_seconds:g} s {len(unsent)} outbox rows of run {run_id} were unsent: {'; '.join(unsent)}."
                f" The run's last seq: {await _last_seq(pool, run_id)}."
            )
        await asyncio.sleep(_LOOK_EVERY_SECONDS)


async def await_stream_completion(*watchers: "Watcher", timeout_seconds: float = 30) -> None:
    """Wait until every watcher has seen `stream.end` and the clean end of the body.

    Raises:
        StillMissing: one has not, or cannot any more; the message has each such watcher's last seq and state.
    """
    deadline = time.monotonic() + timeout_seconds
    for watcher in watchers:
        await watcher.until_closed(max(0.0, deadline - time.monotonic()))
    missing = [watcher.describe() for watcher in watchers if not watcher.ended]
    if missing:
        raise StillMissing(
            f"Within {timeout_seconds:g} s {len(missing)} of {len(watchers)} watchers saw no end: {'; '.join(missing)}."
        )


async def _unsent(pool: Pool, run_id: UUID) -> list[str]:
    async with pool.connection() as connection:
        rows = await connection.fetch(_UNSENT, run_id)
    return [f"seq {row['first_seq']}..{row['last_seq']}, {row['age_seconds']:.1f} s old" for row in rows]


async def _last_seq(pool: Pool, run_id: UUID) -> int | None:
    async with pool.connection() as connection:
        return await connection.fetchval(_LAST_SEQ, run_id)
