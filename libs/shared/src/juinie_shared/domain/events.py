"""Run events: what a type may look like, and the types of those that Juinie itself makes. `run.created` and `run.started`
are made by the statements that write them."""

import re
from datetime import datetime
from typing import NamedTuple

RUN_LEASE_EXPIRED = "run.lease_expired"
RUN_CANCEL_REQUESTED = "run.cancel_requested"
RUN_FINISHED = "run.finished"

RESERVED_PREFIX = "run."

LONGEST_TYPE = 128
_TYPE = re.compile(rf"[A-Za-z0-9._/-]{{1,{LONGEST_TYPE}}}")


def is_event_type(text: str) -> bool:
    """Whether `text` may be an event's type: 1 to 128 characters that need no escape in JSON, SSE or a Kafka header."""
    return _TYPE.fullmatch(text) is not None


class NewEvent(NamedTuple):
    """An event that has no seq yet.

    `data` is its JSON text as it will be stored and sent: one line, no white space outside strings, everything
    else as the client wrote it. `time` is the client's, aware; None means the database's clock.
    """

    type: str
    data: str
    time: datetime | None = None
