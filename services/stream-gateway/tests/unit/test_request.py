"""A request's parameters are those that `urllib` finds in it, whichever way they are read."""

from urllib.parse import parse_qsl

from hypothesis import given
from hypothesis import strategies as st

from juinie_stream_gateway.edges.request import parameters

PIECES = st.sampled_from(
    ["after_seq", "types", "token", "=", "&", "%41", "%", "+", "7", "tail", "ü", ";", "a"]
)


@given(st.lists(PIECES, max_size=8).map("".join))
def test_parameters_are_those_of_urllib(query: str) -> None:
    assert parameters(query) == parse_qsl(query, keep_blank_values=True, errors="replace")


def test_a_position_alone_is_one_parameter() -> None:
    assert parameters("after_seq=150") == [("after_seq", "150")]
    assert parameters("after_seq=1%30") == [("after_seq", "10")]
    assert parameters("") == []
