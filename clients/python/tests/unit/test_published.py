"""An event that never came out of Kafka is found, and one that came in the wrong order."""

from collections.abc import Sequence

import pytest

from juinie.events import RunEvent
from juinie.torture.findings import Findings, Kind
from juinie.torture.published import Published
from juinie.torture.run_history import mark_of

RUN = "run"


def event(seq: int) -> RunEvent:
    return RunEvent.read(b'{"seq":%d,"type":"t","time":"x","data":%d}' % (seq, seq))


def found(records: Sequence[bytes], ordered: bool = True) -> list[tuple[Kind, int]]:
    """The run has the events 1 to 4, and Kafka these records."""
    published, findings = Published(), Findings()
    published.expect(RUN, map(event, range(1, 5)))
    for value in records:
        published.take(RUN, value)
        published.take("another", value)
    published.tell(findings, ordered)
    return [(violation.kind, violation.seq) for violation in findings.kept]


def records(*seqs: int) -> list[bytes]:
    return [event(seq).raw for seq in seqs]


def test_run_that_is_all_there_has_no_finding_whatever_else_is() -> None:
    assert found([*records(1, 2), b"rubbish", *records(2, 1, 2, 3, 4), event(7).raw]) == []


@pytest.mark.parametrize("there", [(), (1, 2, 4), (1, 2, 3)], ids=["nothing", "all but 3", "all but 4"])
def test_event_without_a_record_is_lost(there: tuple[int, ...]) -> None:
    missing = [seq for seq in range(1, 5) if seq not in there]

    assert found(records(*there)) == [(Kind.LOST, seq) for seq in missing]


def test_record_of_the_same_seq_with_other_bytes_does_not_count() -> None:
    assert found([*records(1, 2, 3), event(4).raw + b" "]) == [(Kind.LOST, 4)]


def test_first_records_out_of_order_are_found_where_there_is_an_order() -> None:
    assert found(records(1, 3, 2, 4)) == [(Kind.REORDERED, 2)]
    assert found(records(1, 3, 2, 4), ordered=False) == []


def test_of_a_deleted_run_everything_that_was_shown_has_its_record() -> None:
    published, findings = Published(), Findings()
    published.expect_shown(RUN, {mark_of(event(seq).raw): seq for seq in (1, 2, 4)})
    for seq in (1, 2, 3):
        published.take(RUN, event(seq).raw)
    published.tell(findings, ordered=True)

    assert [(violation.kind, violation.seq) for violation in findings.kept] == [(Kind.LOST, 4)]
