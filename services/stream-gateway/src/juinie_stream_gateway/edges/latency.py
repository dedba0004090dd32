"""How old an event is when its frame goes to the socket."""

import time

from juinie_shared.domain.times import parse_time

BELIEVABLE_SECONDS = 3600.0
"""An event's time may be one that its client chose. Older than this, it says nothing of our speed."""


def seconds_since(event_time: str) -> float | None:
    """Seconds from the event's time to now, None when that cannot be ours. A clock that lags makes it 0."""
    moment = parse_time(event_time)
    if moment is None:
        return None
    late = time.time() - moment.timestamp()
    return max(0.0, late) if late < BELIEVABLE_SECONDS else None
