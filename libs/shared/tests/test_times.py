"""Times on the wire."""

from datetime import UTC, datetime, timedelta, timezone

import pytest

from juinie_shared.domain.times import format_time, parse_time

NOON = datetime(2026, 11, 23, 12, tzinfo=UTC)


@pytest.mark.parametrize(
    ("moment", "text"),
    [
        (NOON, "2026-11-23T12:00:00.000000Z"),
        (NOON.replace(microsecond=123456), "2026-11-23T12:00:00.123456Z"),
        (datetime(2026, 11, 23, 14, tzinfo=timezone(timedelta(hours=2))), "2026-11-23T12:00:00.000000Z"),
        (datetime(1, 1, 1, tzinfo=UTC), "0001-01-01T00:00:00.000000Z"),
        (datetime(9999, 12, 31, 23, 59, 59, 999999, tzinfo=UTC), "9999-12-31T23:59:59.999999Z"),
    ],
)
def test_times_are_shown_in_utc_with_six_digits(moment: datetime, text: str):
    assert format_time(moment) == text
    assert parse_time(text) == moment


@pytest.mark.parametrize(
    ("text", "moment"),
    [
        ("2026-11-23T12:00:00Z", NOON),
        ("2026-11-23t12:00:00z", NOON),
        ("2026-11-23T14:00:00+02:00", NOON),
        ("2026-11-23T06:30:00-05:30", NOON),
        ("2026-11-23T12:00:00.1Z", NOON.replace(microsecond=100000)),
        ("2026-11-23T12:00:00.123456789Z", NOON.replace(microsecond=123456)),
        (f"2026-11-23T12:00:00.1234569{'9' * 500}Z", NOON.replace(microsecond=123456)),
        ("2026-11-24T11:59:00+23:59", NOON),
        ("2016-12-31T23:59:60Z", datetime(2017, 1, 1, tzinfo=UTC)),
        ("2017-01-01T08:59:60.25+09:00", datetime(2017, 1, 1, 0, 0, 0, 250_000, tzinfo=UTC)),
    ],
)
def test_rfc_3339_with_an_offset_is_a_time(text: str, moment: datetime):
    assert parse_time(text) == moment


@pytest.mark.parametrize(
    "text",
    ["", "2026-11-23", "2026-11-23T12:00:00", "2026-11-23 12:00:00Z", "2026-11-23T12:00Z", "2026-11-23T12:00:00,5Z", "2026-13-23T12:00:00Z",
     "2026-02-30T12:00:00Z", "2026-11-23T25:00:00Z", "2026-11-23T12:00:00+0200", "2026-11-23T12:00:00Z\n", "0001-01-01T00:00:00+01:00",
     "9999-12-31T23:59:59-01:00", "9999-12-31T23:59:60Z", "2026-11-23T12:00:60Z", "2026-11-30T23:58:60Z", "2026-11-29T23:59:60Z", "2026-11-23T12:00:61Z",
     "2026-11-23T12:00:00+24:00", "2026-11-23T12:00:00+00:60", "2026-11-23T12:00:00.Z", "٢٠٢٦-11-23T12:00:00Z", "1e9", "now"],
)  # fmt: skip
def test_anything_else_is_none(text: str):
    assert parse_time(text) is None
