"""How old an event is when its frame goes to the socket."""

from datetime import UTC, datetime
from functools import lru_cache

BELIEVABLE_SECONDS = 3600.0
"""An event's time may be one that its client chose. Older than this, it says nothing of our speed."""
_WHOLE = len("2026-11-26T12:00:00")


def seconds_between(event_time: str, now: float) -> float | None:
    """Seconds from an event's time, as records have it, to now (of `time.time()`); None when that cannot be ours.

    A clock that lags makes it 0.
    """
    second = _second(event_time[:_WHOLE])
    if second is None:
        return None
    late = now - second - int(event_time[_WHOLE + 1 : -1]) / 1e6
    return max(0.0, late) if late < BELIEVABLE_SECONDS else None


@lru_cache(maxsize=1024)
def _second(text: str) -> float | None:
    """Most events of a moment share it. None: there is no such day."""
    try:
        return datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp()
    except (ValueError, OverflowError):
        return None
