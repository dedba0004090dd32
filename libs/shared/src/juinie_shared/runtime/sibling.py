"""One of several processes of a service that share its port: what it gets from its parent, and what it tells it.

Parent and child hold the ends of a socket. The parent writes `STOP`; when it is gone, the child reads the end and goes
at once. The child writes lines: that it `STARTED`, that it is `LEAVING`, or what ends it, a `FAULT` of its own or a `WRONG_SETUP`, which is
all of theirs.
"""

import asyncio
import ctypes
import os
import signal
import socket
import sys
from contextlib import suppress
from dataclasses import dataclass
from typing import Self

import msgspec

STOP = b"."
STARTED = "started"
LEAVING = "leaving"
FAULT = "fault: "
WRONG_SETUP = "wrong setup: "
_VARIABLE = "JUINIE_SIBLING"
"""Between parent and child alone: no setting."""
_ORPHANED_EXIT = 137
_PR_SET_PDEATHSIG = 1


@dataclass(frozen=True, slots=True)
class Sibling:
    """A place among `count` siblings, `index` of them. `listener`, `parent` and `asked` are descriptors that it inherits."""

    index: int
    count: int
    parent_pid: int
    listener: int
    parent: int
    asked: int
    answers: str
    """Where siblings ask each other for their probes, but for the index."""
    inbox: int = -1
    inboxes: tuple[int, ...] = ()
    """To write to, of all places (`runtime/hand_over.py`)."""

    @classmethod
    def from_environment(cls) -> Self | None:
        """What the parent left for this process; None in one that has no siblings. Once: no child of its own is to find it."""
        text = os.environ.pop(_VARIABLE, None)
        return msgspec.json.decode(text, type=cls) if text else None

    def as_environment(self) -> dict[str, str]:
        return {_VARIABLE: msgspec.json.encode(self).decode()}

    def take_port(self) -> socket.socket:
        """The listener that the parent made for this place."""
        return socket.socket(fileno=self.listener)

    def take_questions(self) -> socket.socket:
        """The listener where siblings ask this place (`runtime/meeting_point.py`)."""
        return socket.socket(fileno=self.asked)

    def take_inbox(self) -> socket.socket:
        """Where siblings put connections for this place."""
        return socket.socket(fileno=self.inbox)

    def take_inboxes(self) -> list[socket.socket]:
        """To put connections into, by the index of the sibling."""
        return [socket.socket(fileno=descriptor) for descriptor in self.inboxes]

    def address_of(self, index: int) -> str:
        """Where to ask that one."""
        return f"{self.answers}{index}"

    def tell_started(self, _port: int) -> None:
        """It listens: what ends it now is its own, and not the setup's."""
        self._tell(STARTED)

    def tell_leaving(self) -> None:
        """It takes nothing from its siblings any more."""
        self._tell(LEAVING)

    def tell_fault(self, message: str) -> None:
        """What ends this process, and may pass."""
        self._tell(f"{FAULT}{message}")

    def tell_wrong_setup(self, message: str) -> None:
        """What ends this process, and would end any other."""
        self._tell(f"{WRONG_SETUP}{message}")

    def die_with_parent(self) -> None:
        """Even when this process hangs, where the system can do that (Linux)."""
        if sys.platform == "linux":
            ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        if os.getppid() != self.parent_pid:
            os._exit(_ORPHANED_EXIT)

    def watch_parent(self, stopping: asyncio.Event) -> None:
        """Set `stopping` when the parent says so, and exit when it is gone: its port is to be free for the next."""

        def read() -> None:
            with suppress(BlockingIOError):
                if not os.read(self.parent, 1):
                    os._exit(_ORPHANED_EXIT)
                stopping.set()

        os.set_blocking(self.parent, False)
        asyncio.get_running_loop().add_reader(self.parent, read)

    def _tell(self, line: str) -> None:
        with suppress(OSError):
            os.write(self.parent, f"{' '.join(line.split())}\n".encode())
