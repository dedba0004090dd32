"""One run: what was sent, what was acknowledged, and what each seq turned out to be.

Contents are kept as 64-bit hashes in arrays: 40 bytes for each event of a run that is still open, and nothing of one
that has been concluded. Two events that are sent to one run must differ in their content, or they cannot be told apart.
"""

from array import array
from collections import deque
from collections.abc import Iterable, Iterator, Sequence

from juinie.torture.deletion_history import DeletionHistory
from juinie.torture.findings import Kind
from juinie.torture.leases import LeaseHistory
from juinie.torture.reader_history import Finding, ReaderHistory

_UNKNOWN = 0
_OWN = 1
"""An event of Juinie's own, which nobody sent."""
_AS_OF_SECONDS = 3.0
"""What is said at the end of a wait was so this long before it, or later: 2 s are promised."""


def mark_of(content: bytes) -> int:
    """One number for these bytes, of this process."""
    return hash(content) or 2


def _hashed(content: bytes | None) -> int:
    return _OWN if content is None else mark_of(content)


def look_of(wholes: Iterable[bytes]) -> int:
    """One number for these events, in order."""
    return hash(array("q", map(mark_of, wholes)).tobytes())


class RunHistory:
    """`acked_head` is the highest seq that was acknowledged; `last_seq` that of the finished run."""

    def __init__(self) -> None:
        self.readers: dict[str, ReaderHistory] = {}
        self.leases = LeaseHistory()
        self.deletion = DeletionHistory()
        self.acked_head = 0
        self.last_seq: int | None = None
        self.status: str | None = None
        self._finished_at: float | None = None
        self.head = 0
        self._acks: deque[tuple[float, int]] = deque()
        self._acked_at = array("d")
        self._expected, self._seen, self._whole, self._types = (array("q") for _ in range(4))
        self._doubtful: dict[str, tuple[int, ...]] = {}
        self._tail = 0.0
        self._beyond: dict[str, float] = {}

    def reader(self, name: str) -> ReaderHistory:
        return self.readers.setdefault(name, ReaderHistory(name))

    def send(self, append: str, contents: Iterable[bytes], attempt: int | None = None) -> None:
        """An append is about to be sent. It stays doubtful until it is acknowledged or refused."""
        self._doubtful[append] = hashes = tuple(map(_hashed, contents))
        self._beyond[append] = self._tail
        if attempt is not None:
            self.leases.send(hashes, attempt)

    def acknowledge(self, append: str, first: int, last: int, at: float) -> Iterator[Finding]:
        """The append is stored at these seqs, says the answer."""
        hashes = self._doubtful.pop(append)
        if first <= self._beyond.pop(append):
            yield Kind.LOST, first, "not sent yet when a watcher was told that the tail is beyond it"
        if last - first + 1 != len(hashes):
            yield Kind.TORN, first, f"{len(hashes)} events were sent, the answer says {first} to {last}"
            return
        self._reach(last)
        for seq, content in enumerate(hashes, first):
            yield from self._expect(seq, content, at)
        self._take_ack(last, at)
        if self.last_seq is not None and last >= self.last_seq:
            yield Kind.AFTER_END, last, f"acknowledged, though the run ended at {self.last_seq}"

    def refuse(self, append: str) -> None:
        """The append was refused: none of it may ever be seen."""
        del self._beyond[append]
        del self._doubtful[append]

    def finish(self, last_seq: int, at: float) -> Iterator[Finding]:
        """The end is acknowledged."""
        if self.last_seq not in (None, last_seq):
            yield Kind.END_TWICE, last_seq, f"an end is acknowledged, and there was one at {self.last_seq}"
        elif self.last_seq is None and self.acked_head >= last_seq:
            yield Kind.LOST, self.acked_head, f"acknowledged, but the run ended at {last_seq}"
        self.last_seq = last_seq
        self._finished_at = at if self._finished_at is None else self._finished_at
        self._reach(last_seq)
        self._take_ack(last_seq, at)

    def end_as(self, status: str) -> Iterator[Finding]:
        """Somebody was told how the run ended."""
        if self.status not in (None, status):
            yield Kind.WRONG_STATUS, self.head, f"{status}, and {self.status} was told before"
        self.status = self.status or status

    def wait_in_vain(self, last_seq: int | None, over_at: float) -> Iterator[Finding]:
        """Somebody was told then that the run goes on, and, but for None, that it has no more events than these."""
        as_of = over_at - _AS_OF_SECONDS
        if self._finished_at is not None and self._finished_at <= as_of:
            late = over_at - self._finished_at
            yield Kind.STALE_READ, self.head, f"goes on, it says, {late:.1f} s after its end was acknowledged"
        if last_seq is None:
            return
        for seq, acked_at in enumerate(self._acked_at[last_seq:], last_seq + 1):
            if 0 < acked_at <= as_of:
                late = over_at - acked_at
                yield Kind.STALE_READ, seq, f"not there yet, it says, {late:.1f} s after it was acknowledged"
                return

    def tell_tail(self, position: float) -> None:
        """Somebody was told that the run is here: what is sent from now on comes later. Infinite where nothing comes."""
        self._tail = max(self._tail, position)

    def show(self, seq: int, content: bytes | None, whole: bytes, name: str = "") -> Iterator[Finding]:
        """Somebody was shown this event, of the type `name`. `content` is None for one of Juinie's own."""
        self._reach(seq)
        of_content, of_whole, index = _hashed(content), mark_of(whole), seq - 1
        if seq == 1 and content is not None:
            yield Kind.CORRUPT, seq, "the first event is not that of the run's creation"
        if self._whole[index] not in (_UNKNOWN, of_whole):
            yield Kind.CORRUPT, seq, "other bytes than somebody was shown before"
        elif self._expected[index] not in (_UNKNOWN, of_content):
            yield Kind.CORRUPT, seq, "not the event that was acknowledged under this seq"
        self._seen[index], self._whole[index], self._types[index] = of_content, of_whole, hash(name)

    def delay(self, seq: int, open_since: float, now: float) -> float:
        """Seconds from the ack of this event, or from the connection where that came later, to now; 0 before its ack."""
        acked_at = self._acked_at[seq - 1]
        return max(0.0, now - max(acked_at, open_since)) if acked_at else 0.0

    def overdue(self, now: float, limit_seconds: float) -> Iterator[tuple[ReaderHistory, Finding]]:
        """Acknowledged events that an open reader should have by now. Of a run that may be gone nothing is owed."""
        if self.deletion.sent:
            return
        behind = [reader for reader in self.readers.values() if not reader.ended]
        reached = min((reader.position for reader in behind), default=self.acked_head)
        while self._acks and self._acks[0][1] <= reached:
            self._acks.popleft()
        for reader in behind:
            due = next((ack for ack in self._acks if ack[1] > reader.position), None)
            if due:
                for finding in reader.late_for(due[0], due[1], now, limit_seconds):
                    yield reader, finding

    def conclude(self) -> Iterator[Finding]:
        """Nothing more comes: is what was seen, by all readers together, what was sent?"""
        if self.last_seq is None:
            yield Kind.END_MISSING, self.head, "the run was never finished"
        yield from self._wrong_ends()
        if self.deletion.gone_at is not None:
            return  # nobody could read all of it, so what nobody saw says nothing
        for seq, seen in enumerate(self._seen, 1):
            if seen == _UNKNOWN:
                yield Kind.LOST, seq, "no reader ever saw it"
        places = self._places()
        yield from self.leases.conclude(self._seen)
        for append, hashes in self._doubtful.items():
            yield from _whole_or_not_at_all(append, hashes, places)
        yield from self._strangers(set(self._expected), set(places))

    def missed(self) -> Iterator[tuple[ReaderHistory, Finding]]:
        """Of what others saw: what a reader asked for, and was not shown."""
        for reader in self.readers.values():
            for finding in reader.missed(self._types):
                yield reader, finding

    def shown(self) -> dict[int, int]:
        """The seqs that somebody was shown, by the (hashed) bytes."""
        return {whole: seq for seq, whole in enumerate(self._whole, 1) if whole != _UNKNOWN}

    def look(self) -> int:
        """One number for all bytes that were seen; that of the same run, read again, is the same."""
        return hash(self._whole.tobytes())

    def _wrong_ends(self) -> Iterator[Finding]:
        for reader in self.readers.values():
            if reader.ended and self.last_seq not in (None, reader.ended_at):
                what = f"{reader.name} was told that the run ends there, and its end was acknowledged at {self.last_seq}"
                yield (
                    Kind.LOST if reader.ended_at < (self.last_seq or 0) else Kind.AFTER_END,
                    reader.ended_at,
                    what,
                )

    def _places(self) -> dict[int, list[int]]:
        """Where each doubtful content was seen."""
        places: dict[int, list[int]] = {hashed: [] for hashes in self._doubtful.values() for hashed in hashes}
        if places:
            for seq, hashed in enumerate(self._seen, 1):
                if hashed in places:
                    places[hashed].append(seq)
        return places

    def _strangers(self, acknowledged: set[int], doubtful: set[int]) -> Iterator[Finding]:
        """Events at seqs that no append was given."""
        for seq, (seen, expected) in enumerate(zip(self._seen, self._expected, strict=True), 1):
            if expected != _UNKNOWN or seen in (_UNKNOWN, _OWN) or seen in doubtful:
                continue
            if seen in acknowledged:
                yield Kind.REPEATED, seq, "stored a second time"
            else:
                yield Kind.CORRUPT, seq, "an event that nobody sent, or that was refused"

    def _expect(self, seq: int, content: int, at: float) -> Iterator[Finding]:
        index = seq - 1
        if self._expected[index] not in (_UNKNOWN, content):
            yield Kind.CORRUPT, seq, "two appends were given this seq"
        elif self._seen[index] not in (_UNKNOWN, content):
            yield Kind.CORRUPT, seq, "another event was shown under the seq that is now acknowledged"
        self._expected[index], self._acked_at[index] = content, at

    def _take_ack(self, last: int, at: float) -> None:
        if last > self.acked_head:
            self.acked_head = last
            self._acks.append((at, last))

    def _reach(self, seq: int) -> None:
        more = seq - self.head
        if more > 0:
            for kept in (self._expected, self._seen, self._whole, self._types):
                kept.frombytes(bytes(8 * more))
            self._acked_at.frombytes(bytes(8 * more))
            self.head = seq


def _whole_or_not_at_all(
    append: str, hashes: Sequence[int], places: dict[int, list[int]]
) -> Iterator[Finding]:
    """An append without an answer is stored whole and in one piece, once, or not at all."""
    found = [seq for hashed in hashes for seq in places[hashed]]
    if not found:
        return
    if any(len(places[hashed]) > 1 for hashed in hashes):
        yield Kind.REPEATED, found[0], f"append {append} is stored more than once"
    elif found != list(range(found[0], found[0] + len(hashes))):
        yield Kind.TORN, found[0], f"of the {len(hashes)} events of append {append} there are {found}"
