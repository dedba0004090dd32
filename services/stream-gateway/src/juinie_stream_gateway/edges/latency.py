"""How old events are when their frames go to the sockets."""

from collections.abc import Iterable
from datetime import UTC, datetime
from functools import lru_cache

BELIEVABLE_SECONDS = 3600.0
"""An event's time may be one that its client chose. Older than this, it says nothing of our speed."""
_WHOLE = len(b"2026-11-26T12:00:00")


def seconds_since(event_times: Iterable[bytes], now: float) -> list[float]:
    """Seconds from events' times, as records have them, to now (of `time.time()`), of those where that can be ours.

    A clock that lags makes it 0.
    """
    ages: list[float] = []
    for event_time in event_times:
        second = _second(event_time[:_WHOLE])
        if second is None:
            continue
        age = now - second - int(event_time[_WHOLE + 1 : -1]) / 1e6
        if age < BELIEVABLE_SECONDS:
            ages.append(max(0.0, age))
    return ages


@lru_cache(maxsize=1024)
def _second(text: bytes) -> float | None:
    """Most events of a moment share it. None: there is no such day."""
    try:
        return datetime.fromisoformat(text.decode()).replace(tzinfo=UTC).timestamp()
    except (ValueError, OverflowError):
        return None
