"""Connections that siblings hand to one another, each with the request that came on it.

The system decides which process a connection comes to, and knows nothing of what will be asked on it. Where a sibling
serves that cheaper, it gets the connection, whose client notices nothing. This is thrift alone: what cannot be handed over is served
where it is, and as well.

Each place among siblings has an inbox, which their parent makes and holds: what lies in it outlives the process that was to take it.
"""

import os
import socket
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import islice

LAST_HOP = 2
"""Who is handed a connection after so many hops does not ask who else should serve it."""
MOST_HOPS = 255
"""Are counted."""
AT_ONCE = 64
"""So many are taken from an inbox before others have their turn."""
_MOST_BYTES = 64 * 1024
_KIND = socket.SOCK_SEQPACKET if sys.platform == "linux" else socket.SOCK_DGRAM


@dataclass(frozen=True, slots=True)
class Inbox:
    """What a place is handed is read from `own`, and written to `others_end`."""

    own: socket.socket
    others_end: socket.socket

    @classmethod
    def make(cls) -> "Inbox":
        """
        Raises:
            OSError: the system has no descriptor left.
        """
        own, others_end = socket.socketpair(socket.AF_UNIX, _KIND)
        own.setblocking(False)
        others_end.setblocking(False)
        return cls(own, others_end)

    def close(self) -> None:
        self.own.close()
        self.others_end.close()


@dataclass(frozen=True, slots=True)
class Handed:
    """A connection, the head of the request on it, and how often it was handed over."""

    connection: socket.socket
    head: bytes
    hops: int


def hand(to: socket.socket, descriptor: int, head: bytes, hops: int) -> bool:
    """Put a connection into an inbox. The one who had it still has it, and is to close it where that is True."""
    try:
        socket.send_fds(to, [bytes([hops]) + head], [descriptor])
    except OSError:  # full, larger than a message may be, too many under way, or nobody reads it any more
        return False
    return True


def handed(own: socket.socket) -> Iterator[Handed]:
    """All that lies in an inbox. What came without a connection, for want of descriptors, is left out: its client sees it close."""
    with suppress(BlockingIOError):
        while True:
            message, descriptors, _, _ = socket.recv_fds(own, _MOST_BYTES, 1)
            if not message:
                return
            for descriptor in descriptors:
                try:
                    connection = socket.socket(fileno=descriptor)
                except OSError:  # reset meanwhile, on a system that tells it so early
                    os.close(descriptor)
                else:
                    yield Handed(connection, message[1:], message[0])


def hand_on(one: Handed, inboxes: Iterable[socket.socket]) -> bool:
    """Give it to the first of these who can take it, as far as its inbox shows; it is closed here then."""
    hops = min(max(LAST_HOP, one.hops + 1), MOST_HOPS)
    given = any(hand(inbox, one.connection.fileno(), one.head, hops) for inbox in inboxes)
    if given:
        one.connection.close()
    return given


def pass_on(own: socket.socket, inboxes: Sequence[socket.socket], turn: int = 0) -> int:
    """Give what lies in an inbox to others, by turns; where none can take it, close it. Gives whose turn it is then."""
    for one in islice(handed(own), AT_ONCE):
        if not hand_on(one, round_from(turn, inboxes)):
            one.connection.close()
        turn += 1
    return turn


def round_from(place: int, inboxes: Sequence[socket.socket]) -> list[socket.socket]:
    """All of them, the one at `place`, counted round, first."""
    start = place % len(inboxes) if inboxes else 0
    return [*inboxes[start:], *inboxes[:start]]
