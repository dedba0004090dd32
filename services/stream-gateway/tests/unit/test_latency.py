"""How old an event is."""

import pytest

from juinie_stream_gateway.edges.latency import BELIEVABLE_SECONDS, seconds_since

NOON = 1_795_694_400.0  # 2026-11-26T12:00:00Z


def test_it_is_the_time_from_the_event_to_now() -> None:
    times = [b"2026-11-26T12:00:00.250000Z", b"2026-11-26T11:59:59.999999Z", b"2026-11-26T12:00:00.250000Z"]
    assert seconds_since(times, NOON + 1) == pytest.approx([0.75, 1.000001, 0.75])


def test_a_clock_that_lags_makes_it_nothing() -> None:
    assert seconds_since([b"2026-11-26T12:00:05.000000Z"], NOON) == [0.0]


@pytest.mark.parametrize("event_time", [b"2026-11-26T11:00:00.000000Z", b"0001-01-01T00:00:00.000000Z"])
def test_a_time_that_a_client_chose_long_ago_says_nothing(event_time: bytes) -> None:
    assert seconds_since([event_time], NOON + BELIEVABLE_SECONDS) == []


@pytest.mark.parametrize("event_time", [b"2026-02-30T12:00:00.000000Z", b"0000-00-00T00:00:00.000000Z"])
def test_a_day_that_there_is_not_says_nothing(event_time: bytes) -> None:
    assert seconds_since([event_time], NOON) == []
