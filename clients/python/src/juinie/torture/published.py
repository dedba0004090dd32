"""Which events of some runs have come out of Kafka, byte for byte. No I/O: it is told what the pages hold and what each record is.

A record counts by its bytes, so that rubbish and forgeries under a run's key can neither help nor harm.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field

from juinie.events import RunEvent
from juinie.torture.findings import Findings, Kind
from juinie.torture.run_history import mark_of


@dataclass
class _Run:
    waited_for: dict[int, int]
    """The seq of each event, by the mark of its bytes."""
    highest: int = 0
    disorder: list[tuple[int, int]] = field(default_factory=list[tuple[int, int]])


class Published:
    """A sample of runs."""

    def __init__(self) -> None:
        self._runs: dict[str, _Run] = {}

    def expect(self, run: str, events: Iterable[RunEvent]) -> None:
        """All of these were acknowledged, and the outbox is empty: each has to have its record."""
        self._runs[run] = _Run({mark_of(event.raw): event.seq for event in events})

    def expect_shown(self, run: str, seqs: Mapping[int, int]) -> None:
        """A run that was deleted: its events are no longer to be read, and what anybody was shown has its record, by these marks."""
        self._runs[run] = _Run(dict(seqs))

    def take(self, run: str, value: bytes) -> None:
        """A record under this run's key, in the order of its partition."""
        known = self._runs.get(run)
        seq = known.waited_for.pop(mark_of(value), None) if known else None
        if known is None or seq is None:
            return  # not of the sample, once more, or none of Juinie's
        if seq < known.highest:
            known.disorder.append((seq, known.highest))
        known.highest = max(known.highest, seq)

    def tell(self, findings: Findings, ordered: bool) -> None:
        """What is not there; and, where `ordered`, what came first after its successor: a topic that grew has no such order."""
        for name, run in self._runs.items():
            for seq, what in (*_missing(run), *(_disorder(run) if ordered else ())):
                kind = Kind.LOST if seq in run.waited_for.values() else Kind.REORDERED
                findings.add(kind, name, "kafka", seq, what)


def _missing(run: _Run) -> Iterator[tuple[int, str]]:
    for seq in sorted(run.waited_for.values()):
        yield seq, "no record has its bytes, though the outbox is empty"


def _disorder(run: _Run) -> Iterator[tuple[int, str]]:
    for seq, after in run.disorder:
        yield seq, f"its first record comes after that of {after}"
