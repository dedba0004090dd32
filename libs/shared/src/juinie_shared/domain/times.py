"""Times on the wire: RFC 3339, UTC, always six digits of a second."""

import re
from datetime import UTC, datetime

_RFC3339 = re.compile(
    r"\d{4}-\d{2}-\d{2}[Tt]\d{2}:\d{2}:\d{2}(?:\.\d{1,9})?(?:[Zz]|[+-]\d{2}:\d{2})", re.ASCII
)


def format_time(moment: datetime) -> str:
    """`2026-11-23T12:00:00.123456Z`. The same text as the database renders (`db/event_json.py`)."""
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ").rjust(27, "0")


def parse_time(text: str) -> datetime | None:
    """The moment that an RFC 3339 text with an offset names, in UTC; None when it is none.

    Digits past the microsecond are cut. A moment outside the years 1 to 9999 UTC is none.
    """
    if not _RFC3339.fullmatch(text):
        return None
    try:
        return datetime.fromisoformat(text.upper()).astimezone(UTC)
    except (ValueError, OverflowError):
        return None
