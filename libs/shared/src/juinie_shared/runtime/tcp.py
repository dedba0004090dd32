"""What the kernel does for a connection that nobody tends: it finds peers that are gone, and keeps little unsent.

Set on the listening socket, because Linux hands these options on to every connection that it accepts. Where a system
lacks one, the rest stands: a peer that is gone is then found by the first write that fails.
"""

import asyncio
import fcntl
import socket
import struct
import sys
import termios
from contextlib import suppress
from typing import Any

UNACKNOWLEDGED_SECONDS = 45
"""A machine that lost its power or its network acknowledges nothing. With a stream's heartbeat of 10 s before it, such
a peer is found well within 60 s. Asked for by `is_gone`, and not left to the kernel (TCP_USER_TIMEOUT): that counts a window
that is closed, or smaller than what waits for it, as silence too, and cuts who is there and reads slowly."""
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
    (socket.IPPROTO_TCP, "TCP_NOTSENT_LOWAT", UNSENT_BYTES),
)

_RESET_AT_CLOSE = struct.pack("ii", 1, 0)
_IN_FLIGHT, _LAST_ACK_RECEIVED, _BYTES_ACKED = 24, 56, 120
"""Where these are in `struct tcp_info` (linux/tcp.h), which only ever grows at its end."""


def tend(listener: socket.socket) -> None:
    """Have the kernel tend all connections that this socket will accept."""
    for level, name, value in _OPTIONS:
        if hasattr(socket, name):
            with suppress(OSError):
                listener.setsockopt(level, getattr(socket, name), value)


def waiting_bytes(transport: asyncio.Transport) -> int:
    """What the peer has not taken yet of all that was written: in the transport, in the kernel and on its way."""
    size, peer = bytearray(4), transport.get_extra_info("socket")
    if peer is not None:
        with suppress(OSError, ValueError):  # it may be gone since
            fcntl.ioctl(peer.fileno(), termios.TIOCOUTQ, size)  # tcp(7): SIOCOUTQ
    return transport.get_write_buffer_size() + int.from_bytes(size, sys.byteorder)


def taken_bytes(transport: asyncio.Transport) -> int:
    """What the peer has taken since it came. Where the system does not say, only the difference of two looks tells
    something, and only while nothing is written."""
    info = _tcp_info(transport)
    return struct.unpack_from("Q", info, _BYTES_ACKED)[0] if info else -transport.get_write_buffer_size()


def is_gone(transport: asyncio.Transport) -> bool:
    """Whether something is on its way to a peer of which nothing was heard for long. While its window is closed, nothing is."""
    if not (info := _tcp_info(transport)):
        return False
    (in_flight,) = struct.unpack_from("I", info, _IN_FLIGHT)
    (heard_milliseconds_ago,) = struct.unpack_from("I", info, _LAST_ACK_RECEIVED)
    return in_flight > 0 and heard_milliseconds_ago >= UNACKNOWLEDGED_SECONDS * 1000


def cut(transport: asyncio.Transport) -> None:
    """Reset the connection. Without that, the kernel would go on for minutes with what it keeps for one who does not read."""
    peer: Any = transport.get_extra_info("socket")
    if (
        peer is not None and transport.get_write_buffer_size()
    ):  # else it may be closed, and its number another's
        with suppress(OSError, ValueError):
            peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_AT_CLOSE)
    transport.abort()


def _tcp_info(transport: asyncio.Transport) -> bytes:
    """Empty where the system has none of this form, or the connection is over."""
    peer: Any = transport.get_extra_info("socket")
    if peer is not None and sys.platform == "linux":
        with suppress(OSError, ValueError):
            info: bytes = peer.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _BYTES_ACKED + 8)
            return info if len(info) == _BYTES_ACKED + 8 else b""
    return b""
