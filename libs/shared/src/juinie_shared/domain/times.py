"""Times on the wire: RFC 3339, UTC, always six digits of a second."""

import re
from datetime import UTC, datetime, timedelta

_RFC3339 = re.compile(
    r"(\d{4}-\d{2}-\d{2}[Tt]\d{2}:\d{2}:)(\d{2})((?:\.\d+)?(?:[Zz]|[+-](?:[01]\d|2[0-3]):[0-5]\d))", re.ASCII
)
_LEAP = "60"


def format_time(moment: datetime) -> str:
    """`2026-11-23T12:00:00.123456Z`. The same text as the database renders (`db/event_json.py`)."""
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ").rjust(27, "0")


def parse_time(text: str) -> datetime | None:
    """The moment that an RFC 3339 text with an offset names, in UTC; None when it is none.

    Digits past the microsecond are cut. A leap second, which only the last minute of a month has, is the second behind it.
    A moment outside the years 1 to 9999 UTC is none.
    """
    found = _RFC3339.fullmatch(text)
    if not found:
        return None
    minute, second, rest = found.groups()
    try:
        if second != _LEAP:
            return datetime.fromisoformat(text.upper()).astimezone(UTC)
        behind = datetime.fromisoformat(f"{minute}59{rest}".upper()).astimezone(UTC) + timedelta(seconds=1)
    except (ValueError, OverflowError):
        return None
    return behind if (behind.day, behind.hour, behind.minute) == (1, 0, 0) else None
