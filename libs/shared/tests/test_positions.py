"""Positions: what a client may say of where it stands."""

import pytest

from juinie_shared.domain.errors import BadPosition
from juinie_shared.domain.positions import parse_after_seq, parse_position


@pytest.mark.parametrize("text", [None, "0", "-1", "00", "000000000000000000"])
def test_none_zero_and_minus_one_mean_the_start(text: str | None):
    assert parse_after_seq(text) == 0
    assert parse_position(text) == 0


def test_empty_is_the_start_of_a_stream_and_no_position_of_a_page():
    assert parse_position("") == 0
    with pytest.raises(BadPosition):
        parse_after_seq("")


@pytest.mark.parametrize(
    ("text", "seq"), [("1", 1), ("007", 7), ("999999999999999999", 999_999_999_999_999_999)]
)
def test_decimal_integer_of_at_most_18_digits_is_a_position(text: str, seq: int):
    assert parse_after_seq(text) == seq
    assert parse_position(text) == seq


@pytest.mark.parametrize(
    "text",
    [
        "1000000000000000000",
        "-2",
        "-0",
        "+1",
        " 1",
        "1 ",
        "1\n",
        "1.0",
        "1e3",
        "0x1",
        "1_000",
        "\u0661",
        "\uff11",
        "a",
        "tail ",
        "TAIL",
        "\0",
    ],
)
def test_anything_else_is_a_bad_position(text: str):
    with pytest.raises(BadPosition):
        parse_position(text)


def test_tail_is_a_position_of_streams_alone():
    assert parse_position("tail") == "tail"
    with pytest.raises(BadPosition):
        parse_after_seq("tail")
