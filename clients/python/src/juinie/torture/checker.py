"""Holds what a deployment did against what it promised. No I/O and no clock: it is told what happened, and when.

Four people tell it things: whoever appends (`send`, then `acknowledge` or `refuse`, or nothing where no answer came),
whoever finishes a run or deletes it, each reader (`open`, `see`, `drop`, `end`), and whoever reads a run's state. A run is concluded
once all its readers are done; two numbers are kept of it afterwards, so millions of events can be checked.
"""

import math
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from juinie.torture.delays import Delays
from juinie.torture.filtered_history import FilteredHistory
from juinie.torture.findings import Findings, Kind
from juinie.torture.leases import Turn
from juinie.torture.reader_history import Finding, ReaderHistory
from juinie.torture.run_history import RunHistory, look_of


class _Concluded(NamedTuple):
    last_seq: int
    look: int


class Checker:
    """`late_seconds` is how long an acknowledged event may take to a watcher that is open.

    `events` counts events of concluded runs, `deliveries` every event that any reader was shown.
    """

    def __init__(self, late_seconds: float = 30.0) -> None:
        self.findings = Findings()
        self.events = self.deliveries = self.runs = 0
        self._late_seconds = late_seconds
        self._runs: dict[str, RunHistory] = {}
        self._concluded: dict[str, _Concluded] = {}
        self._delays = Delays()

    # ---- writers

    def send(self, run: str, append: str, contents: Iterable[bytes], attempt: int | None = None) -> None:
        """An append is about to be sent, with the lease of this attempt; `contents` must differ within the run."""
        if run not in self._concluded:
            self._run(run).send(append, contents, attempt)

    def acknowledge(self, run: str, append: str, first_seq: int, last_seq: int, at: float) -> None:
        concluded = self._concluded.get(run)
        if concluded is not None:
            what = f"acknowledged when the run had ended at {concluded.last_seq} and been read to its end"
            self.findings.add(Kind.AFTER_END, run, append, last_seq, what)
        else:
            self._note(run, append, self._run(run).acknowledge(append, first_seq, last_seq, at))

    def refuse(self, run: str, append: str, after_no_answer: bool = False) -> None:
        """The append was refused: it may not be there. After a try without an answer that is no proof: it stays doubtful."""
        if not after_no_answer and run not in self._concluded:
            self._run(run).refuse(append)

    def finish(self, run: str, last_seq: int, at: float) -> None:
        """The run's end was acknowledged."""
        self._note(run, "finish", self._run(run).finish(last_seq, at))

    def end_as(self, run: str, who: str, status: str) -> None:
        """Somebody was told how the run ended: by its last event, by `stream.end`, or by an answer."""
        self._note(run, who, self._run(run).end_as(status))

    def finished(self, run: str) -> bool:
        """Somebody was told that the run has ended."""
        return self._run(run).last_seq is not None

    # ---- workers

    def claim(self, run: str, attempt: int, worker: str) -> None:
        """A worker was given the run."""
        self._note(run, worker, self._run(run).leases.claim(attempt, worker))

    def lose_lease(self, run: str, attempt: int) -> None:
        """The worker of this attempt was told that its lease is lost."""
        self._run(run).leases.lose(attempt)

    # ---- deletions

    def delete(self, run: str) -> None:
        """A DELETE is about to be sent: from now on the run may be gone."""
        self._run(run).deletion.sent = True

    def may_be_gone(self, run: str) -> bool:
        return self._run(run).deletion.sent

    def gone(self, run: str, at: float) -> None:
        """The DELETE was answered, or somebody was told 404 after it: from now on nothing of the run may be served."""
        self._run(run).deletion.know(at)

    def is_gone(self, run: str) -> bool:
        return self._run(run).deletion.gone_at is not None

    def serve(self, run: str, who: str, asked_at: float, at: float) -> None:
        """Something of the run came, to somebody who asked for it then."""
        self._note(run, who, self._run(run).deletion.serve(asked_at, at, self._late_seconds))

    def turn_away(self, run: str, reader: str, at: float) -> None:
        """The reader was told that there is no such run, which may be gone."""
        self.gone(run, at)
        self.drop(run, reader)
        self._run(run).reader(reader).turned_away = True

    def shown(self, run: str) -> dict[int, int]:
        """The seqs that somebody was shown, by the marks of their bytes (`mark_of`)."""
        return self._run(run).shown()

    # ---- readers

    def watch(self, run: str, reader: str, types: frozenset[str] | None = None) -> None:
        """A reader begins: it is owed the end, be it ever let in or not. `types`: of what is before it, it wants these."""
        history = FilteredHistory(reader, types=types) if types else ReaderHistory(reader)
        self._run(run).readers[reader] = history

    def begin(self, run: str, reader: str, acknowledged_before: int, position: int, at: float) -> None:
        """A reader that asked for the tail, when so much was acknowledged, was told where it is."""
        self.read(run, reader, acknowledged_before, position)
        self._run(run).tell_tail(position)
        self.open(run, reader, position, at)

    def begin_at_end(self, run: str, reader: str) -> None:
        """A reader that asked for the tail was told that nothing comes any more."""
        self._run(run).tell_tail(math.inf)
        self.leave(run, reader)

    def open(self, run: str, reader: str, after_seq: int, at: float) -> None:
        """A connection is open, after the position that the reader asked for."""
        self._note(run, reader, self._run(run).reader(reader).open(after_seq, at))

    def move(self, run: str, reader: str, position: int | None) -> None:
        """The id that came with the event just seen (None: it had none), or by itself: the reader would come back with it."""
        self._note(run, reader, self._run(run).reader(reader).move(position))

    def skip(self, run: str, reader: str, position: int) -> None:
        """An id alone."""
        self._note(run, reader, self._run(run).reader(reader).skip(position))

    def catch_up(self, run: str, reader: str, acknowledged_before: int, last_seq: int) -> None:
        """The reader was told that it has all that was stored when its connection began; so much was acknowledged before."""
        self.read(run, reader, acknowledged_before, last_seq)
        self._note(run, reader, self._run(run).reader(reader).move(last_seq))

    def see(
        self,
        run: str,
        reader: str,
        seq: int,
        content: bytes | None,
        whole: bytes,
        at: float,
        last: bool = False,
        turn: Turn | None = None,
        first: bool = False,
        name: str = "",
    ) -> None:
        """An event arrived: its content (None for one of Juinie's own), all its bytes, and whether it is the terminal one.

        `turn`: it says that an attempt has begun, or is over. `first`: it says that the run was created. `name`: its type.
        """
        history = self._run(run)
        seen = history.reader(reader)
        self.deliveries += 1
        self._note(run, reader, seen.see(seq, last))
        self._note(run, reader, history.show(seq, content, whole, name))
        if not seen.wants(name):
            self.findings.add(Kind.UNASKED, run, reader, seq, f"of the type {name}, which it left out")
        if first and seq != 1:
            self.findings.add(Kind.REPEATED, run, reader, seq, "the run was created a second time")
        if turn is not None:
            history.leases.turn(seq, turn)
        if seen.open_since is not None:
            self._delays.add(history.delay(seq, seen.open_since, at))

    def drop(self, run: str, reader: str) -> None:
        """The connection ended, not with the end of the run."""
        self._note(run, reader, self._run(run).reader(reader).drop())

    def end(self, run: str, reader: str, last_seq: int) -> None:
        """The reader was told that the run has ended, and at which seq."""
        self._note(run, reader, self._run(run).reader(reader).end(last_seq))

    def leave(self, run: str, reader: str) -> None:
        """The reader has seen what it wanted, and does not come back: nobody owes it the end."""
        self.drop(run, reader)
        del self._run(run).readers[reader]

    def false_end(self, run: str, reader: str) -> None:
        """The body ended cleanly without `stream.end`, so that any other client takes the run for finished."""
        position = self._run(run).reader(reader).position
        self.findings.add(Kind.END_MISSING, run, reader, position, "a clean end without stream.end")
        self.drop(run, reader)

    def trespass(self, run: str, reader: str, what: str) -> None:
        """A token opened what it is not good for."""
        self.findings.add(Kind.TRESPASS, run, reader, 0, what)

    def set_back(self, run: str, reader: str, last_seq: int) -> None:
        """The reader was told that its position is beyond the run's last seq."""
        seen = self._run(run).reader(reader)
        what = f"the run ends at {last_seq}, the reader has {seen.position}"
        self.findings.add(Kind.LOST, run, reader, seen.position, what)
        seen.position = 0

    # ---- reads of a run's state

    def acknowledged(self, run: str) -> int:
        """The highest seq acknowledged so far: what a read that begins now has to show."""
        return self._run(run).acked_head

    def read(self, run: str, reader: str, acknowledged_before: int, last_seq: int) -> None:
        """A read that began when `acknowledged_before` was acknowledged says that the run is at `last_seq`."""
        if last_seq < acknowledged_before:
            what = f"the read says {last_seq}, {acknowledged_before} was acknowledged before it"
            self.findings.add(Kind.STALE_READ, run, reader, last_seq, what)

    def wait_in_vain(self, run: str, reader: str, last_seq: int | None, over_at: float) -> None:
        """A wait that was over then says that the run goes on, and has no events after `last_seq` (None: it says nothing of them)."""
        self._note(run, reader, self._run(run).wait_in_vain(last_seq, over_at))

    def read_again(self, run: str, wholes: Sequence[bytes]) -> None:
        """A concluded run's events, all their bytes, are read once more: they never change."""
        then = self._concluded[run]
        if len(wholes) < then.last_seq:
            what = f"read again, there are {len(wholes)} events, not {then.last_seq}"
            self.findings.add(Kind.LOST, run, "read again", len(wholes), what)
        elif len(wholes) > then.last_seq:
            what = f"read again, there are {len(wholes)} events, and the run ended at {then.last_seq}"
            self.findings.add(Kind.AFTER_END, run, "read again", len(wholes), what)
        elif look_of(wholes) != then.look:
            self.findings.add(Kind.CORRUPT, run, "read again", 0, "other bytes than before")

    def lose(self, run: str, reader: str, what: str) -> None:
        """A concluded run that nobody deleted is not there for who reads it again."""
        self.findings.add(Kind.LOST, run, reader, 0, what)

    # ---- time and the end

    def look_for_late(self, at: float) -> None:
        """Call every second or so."""
        for run, history in self._runs.items():
            for reader, finding in history.overdue(at, self._late_seconds):
                self._note(run, reader.name, [finding])

    def take_delays(self) -> Delays:
        """The times from acks to open watchers, of all events since this was asked last."""
        delays, self._delays = self._delays, Delays()
        return delays

    def conclude(self, run: str) -> None:
        """All readers are done with the run, or have had their time."""
        history = self._runs.pop(run)
        for reader in history.readers.values():
            self._note(run, reader.name, reader.drop())
            self._note(run, reader.name, _unfinished(reader, history.head))
        for reader, finding in history.missed():
            self._note(run, reader.name, [finding])
        self._note(run, "all readers", history.conclude())
        self.events += history.head
        self.runs += 1
        self._concluded[run] = _Concluded(history.head, history.look())

    def _run(self, run: str) -> RunHistory:
        history = self._runs.get(run)
        if history is None:
            history = self._runs[run] = RunHistory()
        return history

    def _note(self, run: str, who: str, findings: Iterable[Finding]) -> None:
        for kind, seq, what in findings:
            self.findings.add(kind, run, who, seq, what)


def _unfinished(reader: ReaderHistory, head: int) -> list[Finding]:
    if reader.ended or reader.turned_away:
        return []
    return [(Kind.END_MISSING, head, f"was never told; the reader has {reader.position}")]
