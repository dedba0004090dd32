"""How stored and live events of a run become one sequence: every seq once, in order, none missing.

Three voices speak of a run, and none of them can be taken at its word alone:

    records    from Kafka: fast, but late, twice, out of order, missing or forged
    pages      from Postgres: the truth, as of the moment of their snapshot
    rows       from Postgres: how far the run is, and whether it has finished

A `Splice` holds them against one number, `head`: all events up to it have been handed on. A record moves the head
only when it is exactly the next one. Whatever else a record claims can at most make us read a page, begun after the
record came: an event is committed before it is published, so that page holds it if it is true. The end comes from the
row alone, which never changes once a run has finished.

No I/O here: the caller reads when `begin_read` says so, and brings back what it found.
"""

from enum import StrEnum
from typing import NamedTuple

from juinie_shared.domain.events import RUN_FINISHED
from juinie_shared.domain.ids import Seq
from juinie_shared.domain.runs import RunStatus
from juinie_stream_gateway.store import Event, Page, RunRow


class Verdict(StrEnum):
    """What became of a record. All but `NEXT` are dropped, and counted under this name."""

    NEXT = "next"
    SEEN = "seen"
    AHEAD = "ahead"
    AFTER_END = "after_end"


class Known(NamedTuple):
    """How far a run was known to be, and with what it was known to have finished, if it had."""

    last_seq: Seq
    ended_as: RunStatus | None

    def is_undone_by(self, row: RunRow) -> bool:
        """What was stored is stored no more. `row` was read after this was known."""
        return row.last_seq < self.last_seq or self.ended_as not in (None, row.status)


class Splice:
    """One run, as far as this gateway has handed it on.

    `head` is None until the first page tells where the run stands. `final` is the row of the finished run.
    """

    __slots__ = ("_read_wanted", "_reading", "_stored", "behind", "final", "head", "times_set_back")

    def __init__(self) -> None:
        self.head: Seq | None = None
        self.final: RunRow | None = None
        self.behind = False
        """Kafka left something out: Postgres is asked more often, until Kafka delivers first again."""
        self.times_set_back = 0
        """What a read says that was begun before the last of them may be of events that are gone, and of an end that never was."""
        self._stored: Seq | None = None
        self._read_wanted = False
        self._reading = False

    @property
    def ended(self) -> bool:
        """All events of a finished run have been handed on."""
        return self.final is not None and self.head == self.final.last_seq

    def take_record(self, event: Event) -> Verdict:
        """A record came. `NEXT`: hand the event on now."""
        if self.head is not None and event.seq <= self.head:
            return Verdict.SEEN
        if self.final is not None:
            if self.ended:
                return Verdict.AFTER_END
            if event.seq == self.final.last_seq and event.type != RUN_FINISHED:
                # No end, where it should be: forged, or the run was set back and goes on.
                self._read_wanted = True
                return Verdict.AHEAD
        if event.seq - 1 != self.head:
            self._read_wanted = True
            return Verdict.AHEAD
        self.head = event.seq
        self.behind = False
        if event.type == RUN_FINISHED:
            self._read_wanted = True  # a hint only: the row says whether it is the end
        return Verdict.NEXT

    def take_page(self, page: Page) -> tuple[Event, ...]:
        """A page came. Gives those of its events that follow the head: hand them on now.

        The first page only tells where the run stands: whoever watches reads up to there by pages of its own.
        """
        if page.row.finished:
            self.final = page.row
        elif self.final is not None and page.row.last_seq >= self.final.last_seq:
            self.final = None  # it was set back, and has gone on from there
        if self.head is None:
            self.head = page.row.last_seq
            return ()
        news = tuple(event for event in page.events if event.seq > self.head)
        if not news or news[0].seq != self.head + 1:
            return ()
        self.head = news[-1].seq
        return news

    def skip_past_retention(self, row: RunRow) -> bool:
        """True: what follows the head is kept no more, and the head stands just before what is."""
        if self.head is None or row.retained_from_seq <= self.head + 1:
            return False
        self.head = Seq(row.retained_from_seq - 1)
        return True

    @property
    def known(self) -> Known | None:
        """What is known by now, be it handed on or not."""
        if self.head is None:
            return None
        last_seq = max(self.head, self._stored or self.head)
        if self.final is None:
            return Known(last_seq, None)
        return Known(max(last_seq, self.final.last_seq), self.final.status)

    def take_row(self, row: RunRow, known_before: Known | None, kafka_away: bool) -> bool:
        """The tail check found this row; `known_before` is what was `known` before it asked.

        True: the run was set back (a database restored from a backup, or a failover that lost commits), and `head` with it, where it
        was further. What is known by now would not do for that comparison: events may have come since the row was read.
        """
        if self.head is None or known_before is None:
            return False
        if known_before.is_undone_by(row):
            self.head = min(self.head, row.last_seq)
            self.final, self._stored = row if row.finished else None, None
            self.times_set_back += 1
            return True
        if row.finished:
            self.final = row
        self._refill_if_lost(self.head, row.last_seq, kafka_away)
        return False

    def _refill_if_lost(self, head: Seq, last_seq: Seq, kafka_away: bool) -> None:
        """Read what Kafka owes us, but give it from one check to the next to bring it: else all is read twice."""
        overdue = self._stored is not None and head < self._stored
        self._stored = last_seq
        if last_seq > head and (overdue or self.behind or kafka_away):
            self._read_wanted = True
        self.behind = self.behind or overdue

    @property
    def suspect(self) -> bool:
        """Ask Postgres about this run sooner than about the others."""
        return self.behind or self.owed

    @property
    def owed(self) -> bool:
        """The last check found events that have not come."""
        return self._stored is not None and self.head is not None and self.head < self._stored

    def want_read(self) -> None:
        """Somebody knows of events that the head has not reached."""
        self._read_wanted = True

    def begin_read(self) -> bool:
        """True: read the page after `head` now, then call `end_read`.

        One read at a time. What asks for one while another is under way gets its own afterwards: the snapshot of
        the first may be older than what was heard since.
        """
        if not self._read_wanted or self._reading or self.head is None:
            return False
        self._read_wanted, self._reading = False, True
        return True

    def end_read(self, page: Page | None) -> tuple[Event, ...]:
        """The read is over; without a page when it failed, so that it is due again. As `take_page`."""
        self._reading = False
        if page is None:
            self._read_wanted = True
            return ()
        before = self.head
        news = self.take_page(page)
        if self.head != before and page.row.last_seq > (self.head or 0):
            self._read_wanted = True  # the page was full: there is more
        return news
