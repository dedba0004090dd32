"""How long something is kept, as a person writes it: `90d`, `12h`, `30m`, `45s`."""

import re
from datetime import timedelta

_DURATION = re.compile(r"([1-9][0-9]{0,9})([dhms])", re.ASCII)
_SECONDS = {"d": 86_400, "h": 3_600, "m": 60, "s": 1}

LONGEST = timedelta(days=36_500)


def parse_duration(text: str) -> timedelta | None:
    """The time that `text` names: a whole number from 1 and its unit, a hundred years at most. None when it names none."""
    match = _DURATION.fullmatch(text)
    if match is None:
        return None
    seconds = int(match[1]) * _SECONDS[match[2]]
    return timedelta(seconds=seconds) if seconds <= LONGEST.total_seconds() else None


def format_duration(duration: timedelta) -> str:
    """In the largest unit that leaves no rest. Parts of a second are cut."""
    seconds = int(duration.total_seconds())
    unit = next(unit for unit, size in _SECONDS.items() if seconds % size == 0)
    return f"{seconds // _SECONDS[unit]}{unit}"
