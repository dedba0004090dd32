"""How what is to be sent again is cut into statements."""

from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from juinie_api.core.republish import Span, batches
from juinie_shared.domain.ids import RunId

A, B, C = (RunId(UUID(int=number)) for number in (1, 2, 3))


@pytest.mark.parametrize(
    ("spans", "expected"),
    [
        ([], []),
        ([Span(A, 5, 4)], []),
        ([Span(A, 1, 10)], [[Span(A, 1, 10)]]),
        ([Span(A, 1, 11)], [[Span(A, 1, 10)], [Span(A, 11, 11)]]),
        ([Span(A, 3, 27)], [[Span(A, 3, 12)], [Span(A, 13, 22)], [Span(A, 23, 27)]]),
        ([Span(A, 1, 4), Span(B, 1, 0), Span(C, 1, 8)], [[Span(A, 1, 4), Span(C, 1, 6)], [Span(C, 7, 8)]]),
    ],
)
def test_statements_have_at_most_so_many_seqs(spans: list[Span], expected: list[list[Span]]):
    assert list(batches(spans, 10)) == expected


@given(
    st.lists(st.tuples(st.sampled_from([A, B, C]), st.integers(1, 40), st.integers(0, 40))),
    st.integers(1, 15),
)
def test_every_seq_is_there_once_and_in_order(wanted: list[tuple[RunId, int, int]], most: int):
    spans = [Span(run_id, first, first + count - 1) for run_id, first, count in wanted]
    cut = list(batches(spans, most))
    assert all(0 < sum(s.last_seq - s.first_seq + 1 for s in batch) <= most for batch in cut)
    assert [seq for batch in cut for span in batch for seq in seqs_of(span)] == [
        seq for span in spans for seq in seqs_of(span)
    ]


def seqs_of(span: Span) -> list[tuple[RunId, int]]:
    return [(span.run_id, seq) for seq in range(span.first_seq, span.last_seq + 1)]
