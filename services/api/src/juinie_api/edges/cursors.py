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
_ID_CURSOR = re.compile(r"[0-9]{1,18}")
_CURSOR = re.compile(r"([0-9]{1,17})\.(.{36})")


def cursor_after(run: Run) -> str:
    return _text_of(f"{(run.created_at - _EPOCH) // _MICROSECOND}.{run.run_id}")


def cursor_after_id(last_id: int) -> str:
    return _text_of(str(last_id))


def parse_id_cursor(text: str) -> int:
    """The id that a cursor of a list by ids stands for.

    Raises:
        Refused: it is none of ours.
    """
    plain = _plain_of(text)
    if not _ID_CURSOR.fullmatch(plain):
        raise _none_of_ours()
    return int(plain)


def parse_cursor(text: str) -> tuple[datetime, RunId]:
    """The (created_at, run_id) that a cursor stands for.

    Raises:
        Refused: it is none of ours.
    """
    found = _CURSOR.fullmatch(_plain_of(text))
    run_id = parse_run_id(found[2]) if found else None
    if found is None or run_id is None:
        raise _none_of_ours()
    return _EPOCH + int(found[1]) * _MICROSECOND, run_id


def _text_of(plain: str) -> str:
    return base64.urlsafe_b64encode(plain.encode()).decode().rstrip("=")


def _plain_of(text: str) -> str:
    """What a cursor says; nothing where it is not even spelled like one."""
    try:
        return base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True).decode("ascii")
    except (ValueError, binascii.Error):
        return ""


def _none_of_ours() -> Refused:
    return Refused(400, "bad_cursor", "The cursor is none that a list gave.")
