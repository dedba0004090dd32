"""Who held one run, and when: leases as the run's own events tell them, held against what workers were told.

The run is with one worker at a time. `run.started` gives it to an attempt, one higher each time; `run.lease_expired` takes it
away; in between, what a worker writes is written by that attempt.
"""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from juinie.torture.findings import Kind
from juinie.torture.reader_history import Finding

STARTED, EXPIRED = "run.started", "run.lease_expired"


class Turn(NamedTuple):
    """`run.started` or `run.lease_expired`: `attempt` begins, or is over. `worker` is whom the start names."""

    name: str
    attempt: int
    worker: str | None = None


class LeaseHistory:
    """One run's claims, the changes that its events tell, and which content was sent under which attempt."""

    def __init__(self) -> None:
        self._turns: dict[int, Turn] = {}
        self._claims: dict[int, str] = {}
        self._lost: set[int] = set()
        self._attempts: dict[int, int] = {}
        self._forbidden: set[int] = set()

    def claim(self, attempt: int, worker: str) -> Iterator[Finding]:
        """A worker was told that it holds the run, as this attempt."""
        holder = self._claims.setdefault(attempt, worker)
        if holder != worker:
            yield Kind.TWO_HOLDERS, 0, f"attempt {attempt} was given to {holder} and to {worker}"

    def lose(self, attempt: int) -> None:
        """Its holder was told that the lease is lost: what it sends from now on may never be seen."""
        self._lost.add(attempt)

    def send(self, contents: Sequence[int], attempt: int) -> None:
        """These (hashes) are sent with the lease of this attempt."""
        self._attempts.update(dict.fromkeys(contents, attempt))
        if attempt in self._lost:
            self._forbidden.update(contents)

    def turn(self, seq: int, turn: Turn) -> None:
        """A reader was shown this change."""
        self._turns[seq] = turn

    def conclude(self, seen: Sequence[int]) -> Iterator[Finding]:
        """`seen`: the content (hashed) at each seq, from 1 on."""
        last = holder = 0
        for seq in sorted({*self._turns, *self._written(seen)}):
            turn = self._turns.get(seq)
            if turn is None:
                yield from self._judge(seq, seen[seq - 1], holder)
            elif turn.name == STARTED:
                yield from self._start(seq, turn, last, holder)
                last = holder = turn.attempt
            else:
                if turn.attempt != holder:
                    yield Kind.WRONG_ATTEMPT, seq, f"attempt {turn.attempt} expired, {holder} held the run"
                holder = 0
        for attempt in self._claims.keys() - {turn.attempt for turn in self._turns.values()}:
            yield Kind.WRONG_ATTEMPT, 0, f"attempt {attempt} was given to a worker, and never started"

    def _written(self, seen: Sequence[int]) -> Iterator[int]:
        """Seqs of what was sent with a lease."""
        if self._attempts:
            yield from (seq for seq, content in enumerate(seen, 1) if content in self._attempts)

    def _start(self, seq: int, turn: Turn, last: int, holder: int) -> Iterator[Finding]:
        if holder:
            yield Kind.TWO_HOLDERS, seq, f"attempt {turn.attempt} started while {holder} held the run"
        if turn.attempt != last + 1:
            yield Kind.WRONG_ATTEMPT, seq, f"attempt {turn.attempt} started after {last}"
        told = self._claims.get(turn.attempt, turn.worker)
        if told != turn.worker:
            yield Kind.TWO_HOLDERS, seq, f"attempt {turn.attempt} is {turn.worker}'s, and {told} was given it"

    def _judge(self, seq: int, content: int, holder: int) -> Iterator[Finding]:
        attempt = self._attempts[content]
        if content in self._forbidden:
            yield Kind.FENCED, seq, f"sent by attempt {attempt} after it was told that its lease is lost"
        elif attempt != holder:
            yield Kind.FENCED, seq, f"by attempt {attempt}, while {holder or 'nobody'} held the run"
