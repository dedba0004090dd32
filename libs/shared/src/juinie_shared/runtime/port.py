"""The port of a service: taken by it alone, or once for all of its processes.

Several processes have a listener each, and Linux shares connections out by their addresses (SO_REUSEPORT), evenly also
when very many come at once. The parent makes all of them and keeps them open: what waits in one outlives the
process that was to accept it, and is answered by the next, unless that one is not begun at once (`Place.wait_before_next`).
"""

import ctypes
import socket
import struct
import sys
from contextlib import suppress

from juinie_shared.domain.errors import PortTaken
from juinie_shared.runtime.tcp import tend

BACKLOG = 2048
SPREAD_BY_SYSTEM = sys.platform == "linux"
"""Elsewhere SO_REUSEPORT gives one listener everything: all processes accept from the same one then."""

_SO_ATTACH_FILTER, _BPF_RETURN = 26, 6
"""From asm-generic/socket.h and linux/bpf_common.h."""


def take_port(host: str, port: int) -> socket.socket:
    """Listen, alone. 0 is a port of the system's choice.

    Raises:
        PortTaken: another program has it.
    """
    listener = _new_listener(host)
    _listen(listener, host, port)
    return listener


def share_port(host: str, port: int, count: int) -> list[socket.socket]:
    """Listeners for so many processes, on one port that no other program has.

    Another listens before them, alone, so that a taken port is told: among listeners of one user SO_REUSEPORT hides it. Whoever
    takes the port in this way finds it taken afterwards, too. That one is deaf: who connects meanwhile tries again and gets one of the others.

    Raises:
        PortTaken: another program has it.
    """
    if not SPREAD_BY_SYSTEM:
        return [take_port(host, port)] * count
    alone = _new_listener(host)
    _deafen(alone)
    _listen(alone, host, port, backlog=0)
    alone.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    port = alone.getsockname()[1]
    listeners = [_new_listener(host) for _ in range(count)]
    try:
        for listener in listeners:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            _listen(listener, host, port)
    except PortTaken:
        for listener in listeners:
            listener.close()
        raise
    finally:
        alone.close()
    return listeners


def _deafen(listener: socket.socket) -> None:
    """Let nothing reach it (Linux: a filter that takes no packet). What would wait in it would be reset when it closes."""
    nothing = ctypes.create_string_buffer(struct.pack("HBBI", _BPF_RETURN, 0, 0, 0))
    program = struct.pack("HP", 1, ctypes.addressof(nothing))
    with suppress(
        OSError
    ):  # a system that is Linux in most things; what is lost there is what comes in some microseconds
        listener.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, program)


def _new_listener(host: str) -> socket.socket:
    listener = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    tend(listener)
    return listener


def _listen(listener: socket.socket, host: str, port: int, backlog: int = BACKLOG) -> None:
    try:
        listener.bind((host, port))
        listener.listen(backlog)
    except OSError as error:
        listener.close()
        raise PortTaken(host, port) from error
