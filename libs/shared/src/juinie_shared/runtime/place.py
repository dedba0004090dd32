"""A place among siblings, as their parent sees it: what is kept for whichever process has it, and what that one says."""

import os
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass

from juinie_shared.runtime.hand_over import Inbox
from juinie_shared.runtime.port import BACKLOG, SPREAD_BY_SYSTEM
from juinie_shared.runtime.sibling import LEAVING, STARTED, Sibling


@dataclass(slots=True)
class Place:
    """`listener` is of the service's port, `asked` of the Unix socket where siblings ask, `inbox` what they hand it; all outlive each process."""

    index: int
    listener: socket.socket
    asked: socket.socket
    inbox: Inbox
    process: subprocess.Popen[bytes] | None = None
    line: socket.socket | None = None
    """The parent's end of the socket between it and the process."""
    start_at: float = 0.0
    has_served: bool = False
    """A process of this place had started, once."""
    _heard: bytes = b""
    _started_at: float = 0.0
    _failures: int = 0
    """In a row: deaths, and processes that the system did not give."""

    def start(self, answers: str, inboxes: Sequence[Inbox]) -> None:
        """Begin a process. `inboxes`: of all places.

        Raises:
            OSError: the system gives none. The listener goes on resting, if it does.
        """
        own_end, its_end = socket.socketpair()
        own_end.setblocking(False)
        own = (self.listener.fileno(), its_end.fileno(), self.asked.fileno())
        inbox, others = self.inbox.own.fileno(), tuple(each.others_end.fileno() for each in inboxes)
        sibling = Sibling(self.index, len(inboxes), os.getpid(), *own, answers, inbox, others)
        with its_end:
            try:
                self.process = subprocess.Popen(  # noqa: S603 - the command that started this process
                    [sys.executable, *sys.orig_argv[1:]],
                    env={**os.environ, **sibling.as_environment()},
                    pass_fds=(*own, inbox, *others),
                    process_group=0,  # Ctrl-C reaches the parent alone, which says when to stop
                )
            except BaseException:
                own_end.close()
                raise
        self.line, self._heard, self._started_at = own_end, b"", time.monotonic()
        self.listener.listen(BACKLOG)  # it may have rested

    def has_started(self) -> bool:
        """Whether the process has said so."""
        if not self.process:
            return False
        started = STARTED in self._hear()
        self.has_served = self.has_served or started
        return started

    def is_away(self) -> bool:
        """Whether nobody here takes what siblings hand over or ask: there is no process, it has not started, or it is leaving."""
        return not self.has_started() or LEAVING in self._hear()

    def told(self, word: str) -> list[str]:
        """What the process has said with this word before it."""
        return [line.removeprefix(word) for line in self._hear() if line.startswith(word)]

    def tell(self, word: bytes) -> None:
        """Nobody hears it where there is no process."""
        if self.line is not None:
            with suppress(OSError):
                self.line.send(word)

    def leave(self) -> None:
        """Its process is gone."""
        self.process = None
        self._hang_up()

    def kill(self) -> None:
        if self.process is not None and self.process.poll() is None:
            self.process.kill()

    def seconds_since_start(self) -> float:
        return time.monotonic() - self._started_at

    def wait_before_next(self, first: float, longest: float, *, was_steady: bool) -> float:
        """Set when the next process begins: at once after the first failure in a row, then ever later. Gives the seconds.

        The listener rests for so long, where its siblings have their own. What waits in it then is reset.
        """
        self._failures = 1 if was_steady else self._failures + 1
        pause = min(first * 2.0 ** min(self._failures - 2, 30), longest) if self._failures > 1 else 0.0
        self.start_at = time.monotonic() + pause
        if pause and SPREAD_BY_SYSTEM:
            with suppress(OSError):  # it rests already
                self.listener.shutdown(socket.SHUT_RD)
        return pause

    def _hear(self) -> list[str]:
        """All that the process has said so far, line by line."""
        with suppress(BlockingIOError):
            while self.line is not None:
                if said := self._receive(self.line):
                    self._heard += said
                else:
                    self._hang_up()
        return self._heard.decode(errors="replace").splitlines()

    def _receive(self, line: socket.socket) -> bytes:
        try:
            return line.recv(4096)
        except ConnectionError:
            return b""

    def _hang_up(self) -> None:
        if self.line is not None:
            self.line.close()
            self.line = None
