"""The parent of a service's processes: starts them, replaces one that dies, passes on that they shall stop, and waits for all.

It makes the port and holds it. It has no event loop and no connection, and loads nothing of the service but its settings.

Until each place had a process that started, a child that cannot start ends the whole, with what it said and its exit code: the next
try would say the same. Afterwards only a child that says that the setup is wrong does so. Any other that dies is replaced, at once the first
time and later the more often that happens, and its siblings are left alone. While it waits, its listener rests, so that they
get all connections.
"""

import math
import select
import signal
import socket
import sys
import time
from collections.abc import Generator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, field
from types import FrameType

from juinie_shared.runtime.hand_over import Inbox, pass_on
from juinie_shared.runtime.logs import get_logger
from juinie_shared.runtime.meeting_point import meeting_point, turn_away
from juinie_shared.runtime.place import Place
from juinie_shared.runtime.port import share_port
from juinie_shared.runtime.process_telemetry import PROCESS_KILLED, PROCESS_LOST, PROCESS_REFUSED
from juinie_shared.runtime.sibling import FAULT, STOP, WRONG_SETUP

FORCED_EXIT = 130
FIRST_PAUSE_SECONDS, LONGEST_PAUSE_SECONDS = 0.5, 8.0
STEADY_SECONDS = 60.0
"""Who has lived for so long does not die again and again."""
BEYOND_DRAIN_SECONDS = 6.0
"""How much longer than a drain takes a child may need to go, before it is killed."""

_log = get_logger("parent")


@dataclass(slots=True)
class Parent:
    """`run()` it in the main thread of a process that has nothing else to do."""

    host: str
    port: int
    processes: int
    drain_seconds: float
    _places: list[Place] = field(default_factory=list[Place])
    _turn: int = 0
    """Who is given the next connection that lies with one who is away."""
    _signals: int = 0
    _stopping: bool = False
    _kill_at: float = float("inf")
    _exit_code: int = 0
    _said: set[str] = field(default_factory=set[str])

    def run(self) -> int:
        """Until all children are gone. Gives the exit code: 0, or that of the first child that failed.

        Raises:
            PortTaken: another program has the port.
            OSError: the system has no descriptor left.
        """
        listeners = share_port(self.host, self.port, self.processes)
        with (
            self._woken() as woken,
            meeting_point(self.processes) as meeting,
            _inboxes(self.processes) as inboxes,
        ):
            self._places = list(map(Place, range(self.processes), listeners, meeting.listeners, inboxes))
            try:
                while self._is_needed():
                    self._wait(woken)
                    self._look_at_children()
                    self._answer_for_absent()
                    self._obey()
                    self._start_due(meeting.address)
            finally:
                self._kill()
                self._close_port()
        return self._exit_code

    def _is_needed(self) -> bool:
        return not self._stopping or any(place.process for place in self._places)

    def _has_served(self) -> bool:
        """Whether each place had a process that started: the setup is right, or was."""
        for place in self._places:
            place.has_started()
        return all(place.has_served for place in self._places)

    def _start_due(self, answers: str) -> None:
        now = time.monotonic()
        for place in self._places:
            if place.process is None and not self._stopping and place.start_at <= now:
                try:
                    place.start(answers, [each.inbox for each in self._places])
                except OSError as error:  # too many processes, too little memory: it may pass
                    self._go_without(place, error.strerror or str(error))

    def _go_without(self, place: Place, reason: str) -> None:
        """The system gives no process."""
        if self._has_served():
            pause = place.wait_before_next(FIRST_PAUSE_SECONDS, LONGEST_PAUSE_SECONDS, was_steady=False)
            _log.warning(PROCESS_REFUSED, process=place.index, reason=reason, pause_seconds=pause)
        else:
            self._fail([f"The system gives no process: {reason}."], 1)

    def _wait(self, woken: socket.socket) -> None:
        """For a signal, a child's end (SIGCHLD) or first word, a question to one that is not there, or what is due."""
        starts = [place.start_at for place in self._places if not place.process and not self._stopping]
        due = min([self._kill_at, *starts])
        timeout = None if due == float("inf") else max(0.0, due - time.monotonic())
        away = [place for place in self._places if place.is_away()]
        lines = [place.line for place in self._places if place.line is not None]
        poll = select.poll()  # `select` knows no descriptor above 1,023
        for waited in (woken, *lines, *(place.asked for place in away), *(place.inbox.own for place in away)):
            poll.register(waited, select.POLLIN)
        if (woken.fileno(), select.POLLIN) in poll.poll(timeout and math.ceil(timeout * 1000)):
            woken.recv(4096)

    def _answer_for_absent(self) -> None:
        present = [place.inbox.others_end for place in self._places if not place.is_away()]
        for place in self._places:
            if place.is_away():
                turn_away(place.asked)
                self._turn = pass_on(place.inbox.own, present, self._turn)

    def _look_at_children(self) -> None:
        for place in self._places:
            if place.process is not None and (code := place.process.poll()) is not None:
                self._bury(place, place.process.pid, code)

    def _bury(self, place: Place, pid: int, code: int) -> None:
        all_served, started = self._has_served(), place.has_started()
        wrong, faults = place.told(WRONG_SETUP), place.told(FAULT)
        place.leave()
        if self._stopping:
            self._say(wrong + faults)
            asked = code in {
                -signal.SIGTERM,
                -signal.SIGINT,
            }  # a supervisor told it, too, and it was not up yet
            self._exit_code = self._exit_code or (0 if asked else _exit_code_of(code))
        elif wrong or (code > 0 and not started and not all_served):
            self._fail(wrong + faults, _exit_code_of(code))
        else:
            self._replace(place, pid, code, faults)

    def _replace(self, place: Place, pid: int, code: int, faults: list[str]) -> None:
        was_steady = place.seconds_since_start() >= STEADY_SECONDS
        pause = place.wait_before_next(FIRST_PAUSE_SECONDS, LONGEST_PAUSE_SECONDS, was_steady=was_steady)
        reason = {"reason": " ".join(faults)} if faults else {}
        _log.warning(
            PROCESS_LOST, process=place.index, pid=pid, exit_code=code, pause_seconds=pause, **reason
        )

    def _fail(self, said: list[str], code: int) -> None:
        """The setup is wrong, for all of them."""
        self._say(said)
        self._exit_code = code
        for place in self._places:
            if not place.has_started():
                place.kill()
        self._stop()

    def _say(self, lines: list[str]) -> None:
        """Once, whichever says it: the one line that a person at a terminal reads."""
        for line in lines:
            if line not in self._said:
                print(line, file=sys.stderr)  # noqa: T201
                self._said.add(line)

    def _obey(self) -> None:
        """The first signal is a request to stop, the second an order."""
        if self._signals and not self._stopping:
            self._stop()
        if self._signals > 1:
            self._exit_code = FORCED_EXIT
            self._kill()
        if time.monotonic() >= self._kill_at:
            self._kill_at = float("inf")
            _log.warning(PROCESS_KILLED, processes=[place.index for place in self._places if place.process])
            self._kill()

    def _stop(self) -> None:
        """The port is the children's now: it closes when the last of them has closed it."""
        self._stopping = True
        self._kill_at = time.monotonic() + self.drain_seconds + BEYOND_DRAIN_SECONDS
        for place in self._places:
            place.tell(STOP)
        self._close_port()

    def _close_port(self) -> None:
        for place in self._places:
            place.listener.close()

    def _kill(self) -> None:
        for place in self._places:
            place.kill()

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
def _inboxes(count: int) -> Generator[list[Inbox]]:
    """One for each place."""
    with ExitStack() as stack:
        yield [stack.enter_context(closing(Inbox.make())) for _ in range(count)]


def _wake(_number: int, _frame: FrameType | None) -> None:
    """That there is a handler writes to the socket."""


def _exit_code_of(code: int) -> int:
    """A child that was killed counts as shells count it."""
    return code if code >= 0 else 128 - code
