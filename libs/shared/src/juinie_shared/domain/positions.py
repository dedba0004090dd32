"""Where a reader stands in a run: `after_seq`, always exclusive."""

import re
from typing import Final, Literal

from juinie_shared.domain.errors import BadPosition
from juinie_shared.domain.ids import Seq

TAIL: Final = "tail"
"""Only what comes from now on."""

START: Final = Seq(0)

_DECIMAL = re.compile(r"[0-9]{1,18}")


def parse_after_seq(text: str | None) -> Seq:
    """The position that a client sent: a decimal integer of at most 18 digits; none, `0`, `-1` = the start.

    Raises:
        BadPosition: anything else.
    """
    if text is None or text == "-1":
        return START
    if not _DECIMAL.fullmatch(text):
        raise BadPosition
    return Seq(int(text))


def parse_position(text: str | None) -> Seq | Literal["tail"]:
    """As `parse_after_seq`, and `tail`; empty is the start, too."""
    return TAIL if text == TAIL else parse_after_seq(text or None)
