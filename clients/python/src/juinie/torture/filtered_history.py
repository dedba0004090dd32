"""What a watcher with `types` has seen of one run. What it left out is skipped by an id alone, which it comes back with.

It keeps the seqs that it saw: which of the others it was owed, those who see everything can say, at the end.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from juinie.events import RUN_FINISHED
from juinie.torture.findings import Kind
from juinie.torture.reader_history import Finding, ReaderHistory


@dataclass
class FilteredHistory(ReaderHistory):
    """`types` are exact; the terminal event comes whatever they are."""

    types: frozenset[str] = frozenset()
    _seen: set[int] = field(default_factory=set[int])

    def wants(self, name: str) -> bool:
        return name in self.types or name == RUN_FINISHED

    def skip(self, to: int) -> Iterator[Finding]:
        if to < self.position:
            yield Kind.WRONG_POSITION, self.position, f"the id alone is {to}, the reader has {self.position}"
        self.position = max(self.position, to)

    def missed(self, types: Sequence[int]) -> Iterator[Finding]:
        wanted = set(map(hash, (*self.types, RUN_FINISHED)))
        for seq, name in enumerate(types[: self.position], 1):
            if name in wanted and seq not in self._seen:
                yield Kind.LOST, seq, f"was asked for and never came; the reader has {self.position}"

    def _go_to(self, seq: int) -> Iterator[Finding]:
        self._seen.add(seq)
        self.position = seq
        return iter(())

    def _see_again(self, seq: int) -> Iterator[Finding]:
        if seq in self._seen:
            yield Kind.REPEATED, seq, f"arrived again at {self.position}"
        else:
            self._seen.add(seq)
            yield Kind.REORDERED, seq, f"arrived after {self.position}"
