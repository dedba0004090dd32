"""The TCP connection under a session, which may die without a word: a machine loses its power, a firewall forgets.

Then all that a pool has are dead at once, and nobody knows. The kernel probes those that rest; and the first that is used
and turns out dead costs its own statement alone: those that rest beside it are doubted, and made anew.
"""

import socket
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import asyncpg

QUIET_SECONDS, PROBE_SECONDS, PROBES = 10, 5, 3
"""A connection that is quiet for so long is probed, so many times: after 25 s its other end is known to be gone. While something
is on its way nothing is probed; then the limits of statements hold."""

_OPTIONS = (
    (socket.SOL_SOCKET, "SO_KEEPALIVE", 1),
    (socket.IPPROTO_TCP, "TCP_KEEPIDLE", QUIET_SECONDS),
    (socket.IPPROTO_TCP, "TCP_KEEPINTVL", PROBE_SECONDS),
    (socket.IPPROTO_TCP, "TCP_KEEPCNT", PROBES),
)

_Connection: Any = asyncpg.Connection


def probe(connection: Any) -> None:
    """Have the kernel probe it while it rests. A Unix-domain socket takes none of this, and needs none."""
    line = connection._transport.get_extra_info("socket")  # noqa: SLF001 - asyncpg has no option for it
    for level, name, value in _OPTIONS:
        if hasattr(socket, name):
            with suppress(OSError):
                line.setsockopt(level, getattr(socket, name), value)


def cut_resting(pool: Any) -> None:
    """Cut those of asyncpg's pool that nobody has; others are made when they are asked for.

    Not `Pool.expire_connections`: that takes those that are lent and well, too, and takes its leave of the dead.
    """
    for holder in pool._holders:  # noqa: SLF001 - as above
        if holder.is_connected() and holder.is_idle():
            holder.terminate()


class Line(_Connection):
    """An asyncpg connection that tells when it has turned out dead. A server that is slow ends a statement itself, or says
    that it has given it up when it is told to; that is no such thing. One that takes longer even for that than a pool waits
    (`PoolLimits.release_seconds`) passes for dead."""

    when_dead: Callable[[], None] | None = None

    def terminate(self) -> None:
        silent = self._protocol is not None and self._protocol._is_cancelling()  # noqa: SLF001 - as above
        super().terminate()
        if silent:
            self._doubt_others()

    def lost(self, error: asyncpg.ConnectionDoesNotExistError) -> None:
        """A statement ended so: is it the line (reset, timed out), or the server that went?"""
        if isinstance(error.__cause__, OSError):
            self._doubt_others()

    def _doubt_others(self) -> None:
        if self.when_dead:
            self.when_dead()
