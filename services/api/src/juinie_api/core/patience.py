"""How long a request may still wait for the database: all its waits together, so that its 503 comes within 5 s.

It begins where the request comes in (`edges/admission.py`) and is seen by whatever waits in the request's task: for its key, for
turns, for a connection, for an answer. Each of these has a limit of its own, and in a row they would be too long. A request that
has waited for something else, as it asked to or because its client was slow, begins again. Tasks of no request have no end of it.
"""

import math
import time
from contextvars import ContextVar

SECONDS = 4.6
"""With what the server itself takes, below the 5 s that are promised."""
ACQUIRE_SECONDS = 0.8
"""For a connection, at least: a free one, or one to be made."""
MOST_ACQUIRE_SECONDS = 2.5
"""Where there is patience for it: on a machine that has much to do, a session takes more than a second to be made."""
RELEASE_SECONDS = 0.8
"""For giving back one whose statement was given up: it is waited for before the answer."""
LOCK_SECONDS = 1.0
"""For a run's row, which is asked for again while the turn at the run lasts."""
STATEMENT_SECONDS = 2.5
SPARE_SECONDS = 0.5
"""What comes after the turns takes longer on a machine that has much to do. Without this a run that is locked would be given up as silent."""
TURN_SECONDS = SECONDS - ACQUIRE_SECONDS - LOCK_SECONDS - SPARE_SECONDS
"""For turns, at the run and among its tenant's: what comes after them still has its time."""

_until: ContextVar[float] = ContextVar("until", default=math.inf)


def begin() -> None:
    """A request has come in."""
    _until.set(time.monotonic() + SECONDS)


def begin_again() -> None:
    """It has waited for what is none of this. Where no request waits, nothing begins."""
    if _until.get() != math.inf:
        begin()


def excuse(seconds: float) -> None:
    """So long it has waited for what is none of this, and is to be answered so much later."""
    _until.set(_until.get() + seconds)


def seconds_left() -> float:
    """Below 0 when it is over."""
    return _until.get() - time.monotonic()


def seconds_for_turns() -> float:
    """What may be waited before a connection is asked for. Below 0: nothing."""
    return seconds_left() - ACQUIRE_SECONDS - LOCK_SECONDS - SPARE_SECONDS


def seconds_for_a_connection() -> float:
    """Where no request waits: as little as after all turns."""
    left = seconds_left()
    if left == math.inf:
        return ACQUIRE_SECONDS
    return min(MOST_ACQUIRE_SECONDS, max(ACQUIRE_SECONDS, left - LOCK_SECONDS - SPARE_SECONDS))


def seconds_spent() -> float:
    """0 where no request waits."""
    return max(0.0, SECONDS - seconds_left())
