"""Comparisons without I/O: each gives its faults, one line each, and none where all is well."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, cast

from juinie.events import RUN_FINISHED, RunEvent

TERMINAL = frozenset({"success", "error", "cancelled", "timeout"})


@dataclass(frozen=True, slots=True)
class Record:
    """A record on Kafka, as far as it says of itself that it belongs to a run."""

    key: bytes | None
    value: bytes | None
    headers: Mapping[str, bytes]
    partition: int = 0
    appended_at_ms: int = 0
    """When the broker took it, in milliseconds since 1970."""


def faults_of_seqs(events: Sequence[RunEvent], first_seq: int, last_seq: int) -> Iterator[str]:
    """From the first that is kept to the run's last, each once and in order."""
    expected = first_seq
    for event in events:
        if event.seq != expected:
            yield f"seq {event.seq} stands where {expected} should"
        expected = event.seq + 1
    if expected != last_seq + 1:
        yield f"the events end at {expected - 1}, the run says {last_seq}"


def faults_of_end(events: Sequence[RunEvent], run: Mapping[str, Any], first_seq: int = 1) -> Iterator[str]:
    """A finished run's last event, and no other, is its end, and says what the run says. Where none is kept there is none to say it."""
    if first_seq > run["last_seq"] and not events:
        return
    ends = [event for event in events if event.type == RUN_FINISHED]
    if run["status"] not in TERMINAL:
        yield from (f"seq {event.seq} is an end, but the run is {run['status']}" for event in ends)
    elif len(ends) != 1 or ends[0] is not events[-1]:
        yield f"the run is {run['status']}, its ends are at {[event.seq for event in ends]}, not at {run['last_seq']}"
    elif (said := _status_in(ends[0])) != run["status"]:
        yield f"the run is {run['status']}, its end says {said}"


def _status_in(end: RunEvent) -> object:
    data = end.data
    return cast("dict[str, object]", data).get("status") if isinstance(data, dict) else None


def faults_of_copy(events: Sequence[RunEvent], copy: Sequence[RunEvent]) -> Iterator[str]:
    """Another place has the same events, in the same order, byte for byte."""
    for event, other in zip(events, copy, strict=False):
        if event.seq != other.seq:
            yield f"seq {other.seq} stands where {event.seq} should"
            return
        if event.raw != other.raw:
            yield f"seq {event.seq} has other bytes"
    if len(copy) != len(events):
        yield f"{len(copy)} events, not {len(events)}"


def missing_on_kafka(events: Sequence[RunEvent], records: Sequence[Record]) -> list[int]:
    """The seqs that no record carries."""
    there = set(seqs_of(records))
    return [event.seq for event in events if event.seq not in there]


def outlived(events: Sequence[RunEvent], kept_since_ms: int | None) -> list[int]:
    """The seqs of events that are older than what Kafka keeps; none where it has removed nothing."""
    return [event.seq for event in events if kept_since_ms is not None and _ms(event.time) < kept_since_ms]


def oldest_of(events: Sequence[RunEvent], missing: Sequence[int]) -> list[int]:
    """The missing seqs before which all are missing: retention leaves no gap."""
    return [seq for seq, event in zip(missing, events, strict=False) if seq == event.seq]


def out_of_order(records: Sequence[Record]) -> Iterator[tuple[int, int]]:
    """Seqs that came for the first time behind a higher one of their partition, and that one. Records as they lie in their partitions.

    What lies in another partition too came there first, if it is older there: the topic grew, and it was sent again.
    """
    first = dict[int, Record]()
    for seq, record in _numbered(records):
        if seq not in first or record.appended_at_ms < first[seq].appended_at_ms:
            first[seq] = record
    highest = dict[int, int]()
    for seq, record in _numbered(records):
        before = highest.get(record.partition, 0)
        if record is first.get(seq):
            del first[seq]
            if seq < before:
                yield seq, before
        highest[record.partition] = max(before, seq)


def judged(
    found: Iterable[tuple[int, str]], excuses: Mapping[int, str]
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """What was found of seqs: the faults, and as notes what the protocol says can be (8.3, 8.5)."""
    told = list(found)
    faults = tuple(text for seq, text in told if seq not in excuses)
    return faults, tuple(f"{text}: {excuses[seq]}" for seq, text in told if seq in excuses)


def faults_of_records(events: Sequence[RunEvent], records: Sequence[Record]) -> Iterator[str]:
    """Each record of an event has its bytes, and headers that say so."""
    by_seq = {event.seq: event for event in events}
    for record in records:
        event = by_seq.get(_seq(record) or 0)
        if event is None:
            yield f"a record with ce_id {record.headers.get('ce_id', b'').decode(errors='replace')} is no event of the run"
        elif record.value != event.raw:
            yield f"the record of seq {event.seq} has other bytes"
        else:
            yield from _faults_of_headers(event, record)


def _faults_of_headers(event: RunEvent, record: Record) -> Iterator[str]:
    run_id = (record.key or b"").decode(errors="replace")
    expected = {
        "ce_specversion": "1.0", "ce_id": f"{run_id}:{event.seq}", "ce_type": event.type, "ce_subject": run_id,
        "ce_time": event.time, "content-type": "application/json",
    }  # fmt: skip
    for name, value in expected.items():
        if record.headers.get(name) != value.encode():
            yield f"the record of seq {event.seq} has a wrong {name}"
    if not record.headers.get("ce_source", b"").startswith(b"/juinie/tenants/"):
        yield f"the record of seq {event.seq} has a wrong ce_source"


def compared(records: Sequence[Record], first_seq: int, last_seq: int | None) -> list[Record]:
    """Without those of events that the log no longer has, and, up to `last_seq` where there is one, of those that came after it was read."""

    def is_due(seq: int | None) -> bool:
        return seq is None or seq < 1 or (first_seq <= seq and (last_seq is None or seq <= last_seq))

    return [record for record in records if is_due(_seq(record))]


def seqs_of(records: Sequence[Record]) -> Iterator[int]:
    """The seqs that records name."""
    return (seq for seq, _ in _numbered(records))


def _numbered(records: Sequence[Record]) -> Iterator[tuple[int, Record]]:
    return ((seq, record) for record in records if (seq := _seq(record)) is not None)


def _ms(time: str) -> int:
    return int(datetime.fromisoformat(time).timestamp() * 1000)


def _seq(record: Record) -> int | None:
    """The seq that a record's ce_id names."""
    text = record.headers.get("ce_id", b"").rpartition(b":")[2]
    return int(text) if text.isdigit() else None
