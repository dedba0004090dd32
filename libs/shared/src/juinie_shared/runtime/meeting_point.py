"""Where siblings ask each other: a Unix socket for each of them, which their parent makes and holds.

On Linux its name is in the abstract space: nothing is written, and none is left behind. Who is in the same network namespace may
connect to it, so each end looks whose the other is. Elsewhere it is in a directory that is its owner's alone. As the parent holds all of
them before there is any child and to the end, nobody else can take a name.
"""

import os
import socket
import struct
import sys
import tempfile
from collections.abc import Generator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

_AT_ONCE = 128


@dataclass(frozen=True, slots=True)
class MeetingPoint:
    """`address`, but for the index, and the listener of each place."""

    address: str
    listeners: list[socket.socket]


@contextmanager
def meeting_point(count: int) -> Generator[MeetingPoint]:
    """For so many siblings, until they are gone.

    Raises:
        OSError: the system has no descriptor left, or no place for a file.
    """
    with ExitStack() as stack:
        address = stack.enter_context(_address())
        listeners = [stack.enter_context(_listen(f"{address}{index}")) for index in range(count)]
        yield MeetingPoint(address, listeners)


def turn_away(listener: socket.socket) -> None:
    """Close those who wait, unanswered: the process that was to answer them is not there."""
    with suppress(OSError):  # none waits any more
        for _ in range(_AT_ONCE):
            peer, _ = listener.accept()
            peer.close()


def is_own(peer: socket.socket) -> bool:
    """Whether the other end is of the same user, where the system says that (unix(7): SO_PEERCRED)."""
    if sys.platform != "linux":
        return True
    _pid, uid, _gid = struct.unpack("3i", peer.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))
    return uid == os.geteuid()


@contextmanager
def _address() -> Generator[str]:
    if sys.platform == "linux":
        yield f"\0juinie-{os.getpid()}-{os.urandom(8).hex()}-"
    else:
        with tempfile.TemporaryDirectory(prefix="juinie-") as directory:
            yield f"{Path(directory)}/"


def _listen(address: str) -> socket.socket:
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    listener.setblocking(False)
    listener.bind(address)
    listener.listen()
    return listener
