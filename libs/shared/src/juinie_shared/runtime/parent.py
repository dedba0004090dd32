"""The parent of a service's processes: starts them, replaces one that dies, passes on that they shall stop, and waits for all.

It makes the port and holds it. It has no event loop and no connection, and loads nothing of the service but its settings.

A child that cannot start ends the whole, with what the child said and its exit code: the next try would say the same. One
that had started and dies is replaced, at once the first time and later the more often that happens. While it waits, its listener
rests, so that its siblings get all connections.
"""

import os
import select
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Generator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType

from juinie_shared.runtime.logs import get_logger
from juinie_shared.runtime.port import BACKLOG, SPREAD_BY_SYSTEM, share_port
from juinie_shared.runtime.process_telemetry import PROCESS_KILLED, PROCESS_LOST
from juinie_shared.runtime.sibling import STARTED, STOP, Sibling

FORCED_EXIT = 130
FIRST_PAUSE_SECONDS, LONGEST_PAUSE_SECONDS = 0.5, 8.0
STEADY_SECONDS = 60.0
"""Who has lived for so long does not die again and again."""
BEYOND_DRAIN_SECONDS = 6.0
"""How much longer than a drain takes a child may need to go, before it is killed."""

_log = get_logger("parent")


@dataclass(slots=True)
class _Child:
    """A place among the siblings, and the process that has it at the moment."""

    index: int
    listener: socket.socket
    process: subprocess.Popen[bytes] | None = None
    line: socket.socket | None = None
    heard: bytes = b""
    started_at: float = 0.0
    start_at: float = 0.0
    deaths: int = 0
    """In a row."""

    def hear(self) -> list[str]:
        """All that its process has said so far, line by line."""
        with suppress(OSError):
            while self.line and (said := self.line.recv(4096)):
                self.heard += said
        return self.heard.decode(errors="replace").splitlines()

    def has_started(self) -> bool:
        return STARTED in self.hear()

    def tell(self, word: bytes) -> None:
        if self.line is not None:
            with suppress(OSError):
                self.line.send(word)

    def pause_seconds(self, now: float) -> float:
        """How long to wait before the next process."""
        self.deaths = self.deaths + 1 if now - self.started_at < STEADY_SECONDS else 1
        if self.deaths == 1:
            return 0.0
        return min(FIRST_PAUSE_SECONDS * 2.0 ** min(self.deaths - 2, 30), LONGEST_PAUSE_SECONDS)


@dataclass(slots=True)
class Parent:
    """`run()` it in the main thread of a process that has nothing else to do."""

    host: str
    port: int
    processes: int
    drain_seconds: float
    _children: list[_Child] = field(default_factory=list[_Child])
    _signals: int = 0
    _stopping: bool = False
    _kill_at: float = float("inf")
    _exit_code: int = 0

    def run(self) -> int:
        """Until all children are gone. Gives the exit code: 0, or that of the first child that failed.

        Raises:
            PortTaken: another program has the port.
        """
        listeners = share_port(self.host, self.port, self.processes)
        self._children = [_Child(index, listener) for index, listener in enumerate(listeners)]
        with self._woken() as woken, _meeting_point() as answers:
            try:
                while self._is_needed():
                    self._start_due(answers)
                    self._wait(woken)
                    self._look_at_children()
                    self._obey()
            finally:
                self._kill()
                self._close_port()
        return self._exit_code

    def _is_needed(self) -> bool:
        return not self._stopping or any(child.process for child in self._children)

    def _start_due(self, answers: str) -> None:
        now = time.monotonic()
        for child in self._children:
            if child.process is None and not self._stopping and child.start_at <= now:
                try:
                    self._start(child, answers)
                except OSError as error:  # too many processes, too little memory: it may pass
                    if not child.deaths:
                        raise
                    self._replace(child, 0, error.errno or 1)

    def _start(self, child: _Child, answers: str) -> None:
        own_end, its_end = socket.socketpair()
        own_end.setblocking(False)
        inherited = (child.listener.fileno(), its_end.fileno())
        sibling = Sibling(child.index, self.processes, os.getpid(), *inherited, answers)
        child.listener.listen(BACKLOG)  # it may have rested
        with its_end:
            child.process = subprocess.Popen(  # noqa: S603 - the command that started this process
                [sys.executable, *sys.orig_argv[1:]],
                env={**os.environ, **sibling.as_environment()},
                pass_fds=inherited,
                process_group=0,  # Ctrl-C reaches the parent alone, which says when to stop
            )
        child.line, child.heard, child.started_at = own_end, b"", time.monotonic()

    def _wait(self, woken: socket.socket) -> None:
        """For a signal, a child's end (SIGCHLD), or the next thing that is due."""
        starts = [child.start_at for child in self._children if not child.process and not self._stopping]
        due = min([self._kill_at, *starts])
        timeout = None if due == float("inf") else max(0.0, due - time.monotonic())
        if select.select([woken], [], [], timeout)[0]:
            woken.recv(4096)

    def _look_at_children(self) -> None:
        for child in self._children:
            if child.process is not None and (code := child.process.poll()) is not None:
                self._bury(child, child.process.pid, code)

    def _bury(self, child: _Child, pid: int, code: int) -> None:
        started, said = child.has_started(), [line for line in child.hear() if line != STARTED]
        child.process = None
        if child.line is not None:
            child.line.close()
        if self._stopping:
            asked = code in {
                -signal.SIGTERM,
                -signal.SIGINT,
            }  # a supervisor told it, too, and it was not up yet
            self._exit_code = self._exit_code or (0 if asked else _exit_code_of(code))
        elif said or (code > 0 and not started):
            self._fail(said, code)
        else:
            self._replace(child, pid, code)

    def _replace(self, child: _Child, pid: int, code: int) -> None:
        now = time.monotonic()
        pause = child.pause_seconds(now)
        child.start_at = now + pause
        if pause and SPREAD_BY_SYSTEM:
            child.listener.shutdown(socket.SHUT_RD)
        _log.warning(PROCESS_LOST, process=child.index, pid=pid, exit_code=code, pause_seconds=pause)

    def _fail(self, said: list[str], code: int) -> None:
        """The setup is wrong, for all of them."""
        for line in said:
            print(line, file=sys.stderr)  # noqa: T201 - the one line that a person at a terminal reads
        self._exit_code = _exit_code_of(code)
        for child in self._children:
            if child.process is not None and not child.has_started():
                child.process.kill()
        self._stop()

    def _obey(self) -> None:
        """The first signal is a request to stop, the second an order."""
        if self._signals and not self._stopping:
            self._stop()
        if self._signals > 1:
            self._exit_code = FORCED_EXIT
            self._kill()
        if time.monotonic() >= self._kill_at:
            self._kill_at = float("inf")
            _log.warning(PROCESS_KILLED, processes=[child.index for child in self._children if child.process])
            self._kill()

    def _stop(self) -> None:
        """The port is the children's now: it closes when the last of them has closed it."""
        self._stopping = True
        self._kill_at = time.monotonic() + self.drain_seconds + BEYOND_DRAIN_SECONDS
        for child in self._children:
            child.tell(STOP)
        self._close_port()

    def _close_port(self) -> None:
        for child in self._children:
            child.listener.close()

    def _kill(self) -> None:
        for child in self._children:
            if child.process is not None and child.process.poll() is None:
                child.process.kill()

    @contextmanager
    def _woken(self) -> Generator[socket.socket]:
        """A socket that can be read when a signal has come."""

        def count_signal(_number: int, _frame: FrameType | None) -> None:
            self._signals += 1

        reader, writer = socket.socketpair()
        with reader, writer:
            reader.setblocking(False)
            writer.setblocking(False)
            signal.set_wakeup_fd(writer.fileno(), warn_on_full_buffer=False)
            signal.signal(signal.SIGCHLD, _wake)
            for number in (signal.SIGTERM, signal.SIGINT):
                signal.signal(number, count_signal)
            try:
                yield reader
            finally:
                signal.set_wakeup_fd(-1)


@contextmanager
def _meeting_point() -> Generator[str]:
    """Where siblings find each other, but for the index: a name in Linux's abstract space, elsewhere a directory."""
    if sys.platform == "linux":
        yield f"\0juinie-{os.getpid()}-{os.urandom(8).hex()}-"
    else:
        with tempfile.TemporaryDirectory(prefix="juinie-") as directory:
            yield f"{Path(directory)}/"


def _wake(_number: int, _frame: FrameType | None) -> None:
    """That there is a handler writes to the socket."""


def _exit_code_of(code: int) -> int:
    """A child that was killed counts as shells count it."""
    return code if code >= 0 else 128 - code
