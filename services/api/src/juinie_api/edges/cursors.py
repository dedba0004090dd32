"""List cursors: where the page before ended, as text that clients hand back and need not understand."""

import base64
import binascii
import re
from datetime import UTC, datetime, timedelta

from juinie_api.core.run import Run
from juinie_api.edges.problems import Refused
from juinie_shared.domain.ids import RunId, parse_run_id

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)
_CURSOR = re.compile(r"([0-9]{1,17})\.(.{36})")


def cursor_after(run: Run) -> str:
    text = f"{(run.created_at - _EPOCH) // _MICROSECOND}.{run.run_id}"
    return base64.urlsafe_b64encode(text.encode()).decode().rstrip("=")


def parse_cursor(text: str) -> tuple[datetime, RunId]:
    """The (created_at, run_id) that a cursor stands for.

    Raises:
        Refused: it is none of ours.
    """
    try:
        plain = base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True).decode("ascii")
    except (ValueError, binascii.Error):
        plain = ""
    found = _CURSOR.fullmatch(plain)
    run_id = parse_run_id(found[2]) if found else None
    if found is None or run_id is None:
        raise Refused(400, "bad_cursor", "The cursor is none that a list gave.")
    return _EPOCH + int(found[1]) * _MICROSECOND, run_id
