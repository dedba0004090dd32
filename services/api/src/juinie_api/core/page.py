"""Read a run's events, a page at a time, after a position; wait a while where there are none yet."""

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace

from juinie_api.core.waker import Waker
from juinie_api.store.events import READ_EVENTS, READ_HEAD
from juinie_shared.db.pool import Connection, Pool
from juinie_shared.domain.errors import EventsGone, RunNotFound
from juinie_shared.domain.ids import RunId, Seq, TenantId
from juinie_shared.domain.positions import START

LOOK_SEQS = 100_000
"""A page with `types` ends after so many events, whether it found any: a long run that has few of them is read in parts."""


@dataclass(frozen=True, slots=True)
class PageRequest:
    """Which events: after a position, at most so many and so many bytes, of these types (None: all)."""

    run_id: RunId
    tenant_id: TenantId
    after_seq: Seq
    limit: int
    max_bytes: int
    types: Sequence[str] | None = None


@dataclass(frozen=True, slots=True)
class EventPage:
    """`events` are their JSON. `reset`: the position was ahead of the run, so this page begins at its start."""

    events: list[str]
    next_after_seq: Seq
    last_seq: Seq
    finished: bool
    reset: bool

    @property
    def up_to_date(self) -> bool:
        return self.next_after_seq >= self.last_seq


async def read_page(pool: Pool, wanted: PageRequest) -> EventPage:
    """One page, as the run stands now.

    Raises:
        RunNotFound: no such run.
        EventsGone: the next events after the position are no longer kept.
    """
    async with pool.connection() as connection:
        head = await connection.fetchrow(READ_HEAD, wanted.run_id, wanted.tenant_id)
        if head is None:
            raise RunNotFound
        last_seq, retained_from_seq = Seq(head["last_seq"]), head["retained_from_seq"]
        reset = wanted.after_seq > last_seq
        after_seq = START if reset else wanted.after_seq
        if after_seq + 1 < retained_from_seq:
            raise EventsGone(retained_from_seq)
        until = last_seq if wanted.types is None else min(last_seq, Seq(after_seq + LOOK_SEQS))
        events, next_after_seq = await _read_events(connection, wanted, after_seq, until)
        if len(events) < next_after_seq - after_seq:
            await _see_that_all_is_kept(connection, wanted, after_seq)
    return EventPage(events, next_after_seq, last_seq, head["finished"], reset)


async def _see_that_all_is_kept(connection: Connection, wanted: PageRequest, after_seq: Seq) -> None:
    """Events are missing: left out by `types`, or removed since the run was read. The run says so before they go."""
    head = await connection.fetchrow(READ_HEAD, wanted.run_id, wanted.tenant_id)
    if head is None:
        raise RunNotFound
    if after_seq + 1 < head["retained_from_seq"]:
        raise EventsGone(head["retained_from_seq"])


async def _read_events(
    connection: Connection, wanted: PageRequest, after_seq: Seq, until: Seq
) -> tuple[list[str], Seq]:
    """The events up to `until`, and the position after them: past those that `types` left out, when none is left to read."""
    if after_seq >= until:
        return [], until
    types = list(wanted.types) if wanted.types is not None else None
    rows = await connection.fetch(
        READ_EVENTS, wanted.run_id, after_seq, until, types, wanted.limit, wanted.max_bytes
    )
    if not rows:
        return [], until
    events = [row["json"] for row in rows]
    last_read = Seq(rows[-1]["seq"])
    if len(rows) == wanted.limit or last_read == until:
        return events, last_read
    return events, await _end_of_short_page(connection, wanted, last_read, until)


async def _end_of_short_page(connection: Connection, wanted: PageRequest, last_read: Seq, until: Seq) -> Seq:
    """A page ends before its limit because its bytes were full, or because `types` leaves out all that follows."""
    types = list(wanted.types) if wanted.types is not None else None
    following = await connection.fetch(READ_EVENTS, wanted.run_id, last_read, until, types, 1, 0)
    return last_read if following else until


async def wait_for_page(pool: Pool, waker: Waker, wanted: PageRequest, wait_seconds: float) -> EventPage:
    """As `read_page`; where that page is empty and the run goes on, the first one within `wait_seconds` that is not.

    No connection is held while waiting. A draining server answers at once, and so does one that has to say `reset`.

    Raises:
        RunNotFound, EventsGone: as `read_page`.
        Transient: the database cannot be asked, or was not seen for as long as may be (`Waker`).
    """
    until = time.monotonic() + wait_seconds
    page = await read_page(pool, wanted)
    while not (page.events or page.finished or page.reset):
        remaining = until - time.monotonic()
        if not await waker.wait(wanted.run_id, page.next_after_seq, remaining):
            break
        page = await read_page(pool, replace(wanted, after_seq=page.next_after_seq))
    return page
