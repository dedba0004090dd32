"""What the kernel does for a connection that nobody tends: it finds peers that are gone, and keeps little unsent.

Set on the listening socket, because Linux hands these options on to every connection that it accepts. Where a system
lacks one, the rest stands: a peer that is gone is then found by the first write that fails.
"""

import asyncio
import socket
import struct
import sys
from contextlib import suppress
from typing import Any

UNACKNOWLEDGED_SECONDS = 45
"""A machine that lost its power or its network acknowledges nothing. With a stream's heartbeat of 10 s before it, such
a peer is found well within 60 s."""
QUIET_SECONDS, PROBE_SECONDS, PROBES = 15, 5, 6
"""A connection that is quiet for so long is probed, so many times: 45 s for those without a heartbeat, too."""
UNSENT_BYTES = 64 * 1024
"""What may wait in the kernel beyond what is on its way. Without a limit it takes megabytes for one who does not read;
what is on its way is not limited, so neither is the speed."""

_OPTIONS = (
    (socket.SOL_SOCKET, "SO_KEEPALIVE", 1),
    (socket.IPPROTO_TCP, "TCP_KEEPIDLE", QUIET_SECONDS),
    (socket.IPPROTO_TCP, "TCP_KEEPINTVL", PROBE_SECONDS),
    (socket.IPPROTO_TCP, "TCP_KEEPCNT", PROBES),
    (socket.IPPROTO_TCP, "TCP_USER_TIMEOUT", UNACKNOWLEDGED_SECONDS * 1000),
    (socket.IPPROTO_TCP, "TCP_NOTSENT_LOWAT", UNSENT_BYTES),
)


_LAST_ACK_RECEIVED = 56
"""Where `tcpi_last_ack_recv` is in `struct tcp_info` (linux/tcp.h), which only ever grows at its end."""


def tend(listener: socket.socket) -> None:
    """Have the kernel tend all connections that this socket will accept."""
    for level, name, value in _OPTIONS:
        if hasattr(socket, name):
            with suppress(OSError):
                listener.setsockopt(level, getattr(socket, name), value)


def leave_slowness_to_us(transport: asyncio.Transport, ours: bool) -> None:
    """Whether the kernel leaves it to us how long this client may read nothing.

    It counts a closed window as silence (tcp(7), TCP_USER_TIMEOUT), also of a client that is there and answers probes.
    """
    milliseconds = 0 if ours else UNACKNOWLEDGED_SECONDS * 1000
    peer = _socket_of(transport)
    if peer is not None and hasattr(socket, "TCP_USER_TIMEOUT"):
        with suppress(OSError, ValueError):  # it may be gone since
            peer.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, milliseconds)


def is_gone(transport: asyncio.Transport) -> bool:
    """Whether nothing was heard of a peer that owes an acknowledgement: not even of our probes of its closed window."""
    peer = _socket_of(transport)
    if peer is None or sys.platform != "linux":
        return False
    with suppress(OSError, ValueError):
        info = peer.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _LAST_ACK_RECEIVED + 4)
        heard_milliseconds_ago: int = struct.unpack_from("I", info, _LAST_ACK_RECEIVED)[0]
        return heard_milliseconds_ago >= UNACKNOWLEDGED_SECONDS * 1000
    return False


def _socket_of(transport: asyncio.Transport) -> Any:
    return None if transport.is_closing() else transport.get_extra_info("socket")
