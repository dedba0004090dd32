"""Comparisons without I/O: each gives its faults, one line each, and none where all is well."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

from juinie.events import RUN_FINISHED, RunEvent

TERMINAL = frozenset({"success", "error", "cancelled", "timeout"})


@dataclass(frozen=True, slots=True)
class Record:
    """A record on Kafka, as far as it says of itself that it belongs to a run."""

    key: bytes | None
    value: bytes | None
    headers: Mapping[str, bytes]


def faults_of_seqs(events: Sequence[RunEvent], first_seq: int, last_seq: int) -> Iterator[str]:
    """From the first that is kept to the run's last, each once and in order."""
    expected = first_seq
    for event in events:
        if event.seq != expected:
            yield f"seq {event.seq} stands where {expected} should"
        expected = event.seq + 1
    if expected != last_seq + 1:
        yield f"the events end at {expected - 1}, the run says {last_seq}"


def faults_of_end(events: Sequence[RunEvent], run: Mapping[str, Any]) -> Iterator[str]:
    """A finished run's last event, and no other, is its end, and says what the run says."""
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
    there = set(_seqs(records))
    return [event.seq for event in events if event.seq not in there]


def faults_of_order(records: Sequence[Record]) -> Iterator[str]:
    """First occurrences are in order."""
    seen, highest = set[int](), 0
    for seq in _seqs(records):
        if seq not in seen and seq < highest:
            yield f"seq {seq} came first after {highest}"
        seen.add(seq)
        highest = max(highest, seq)


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


def _seqs(records: Sequence[Record]) -> Iterator[int]:
    return (seq for record in records if (seq := _seq(record)) is not None)


def _seq(record: Record) -> int | None:
    """The seq that a record's ce_id names."""
    text = record.headers.get("ce_id", b"").rpartition(b":")[2]
    return int(text) if text.isdigit() else None
