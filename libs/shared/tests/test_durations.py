"""Times as a person writes them."""

from datetime import timedelta

import pytest

from juinie_shared.domain.durations import format_duration, parse_duration


@pytest.mark.parametrize(
    ("text", "duration"),
    [
        ("90d", timedelta(days=90)),
        ("12h", timedelta(hours=12)),
        ("30m", timedelta(minutes=30)),
        ("45s", timedelta(seconds=45)),
        ("36500d", timedelta(days=36_500)),
    ],
)
def test_number_and_unit_are_a_time_and_are_told_alike(text, duration):
    assert parse_duration(text) == duration
    assert format_duration(duration) == text


@pytest.mark.parametrize(
    "text",
    ["", "d", "90", "0d", "-1d", "1.5d", "90 d", " 90d", "90D", "90d ", "1d12h", "1w", "٣d", "1e3d", "36501d", "9999999999d",
     "99999999999999999999d", "never", "90d\n"],
)  # fmt: skip
def test_anything_else_is_none(text):
    assert parse_duration(text) is None


def test_largest_unit_without_a_rest_is_told():
    assert [format_duration(timedelta(seconds=seconds)) for seconds in (3600, 86_400, 90, 5400, 1)] == [
        "1h", "1d", "90s", "90m", "1s",
    ]  # fmt: skip
