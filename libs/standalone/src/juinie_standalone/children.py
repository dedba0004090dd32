"""Child processes that outlive the command which started them, known again by pid *and* start time.

A pid alone is never trusted: after a crash or a reboot it may belong to somebody else, who must not be killed.
"""

import ctypes
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from juinie_standalone.errors import (
    DISK_FULL,
    DiedDuringStart,
    NotHealthyInTime,
    StandaloneError,
    is_disk_full,
)

_POLL_SECONDS = 0.02
_KILLED_SECONDS = 5.0
_LOG_KEPT_BYTES = 10 * 1024 * 1024
_PR_SET_PDEATHSIG = 1


@dataclass(frozen=True)
class Identity:
    """One process, for ever: no other has this pid and this start."""

    pid: int
    started: str


@dataclass
class Child:
    """A process of ours. `popen` only where this very program started it, which then has to reap it."""

    identity: Identity
    log: Path
    popen: subprocess.Popen[bytes] | None = field(default=None, repr=False)

    @property
    def pid(self) -> int:
        return self.identity.pid

    def is_alive(self) -> bool:
        if self.popen is not None:
            return self.popen.poll() is None  # and reaps it; until then nobody else can have the pid
        return identity_of(self.pid) == self.identity

    def send(self, number: int) -> None:
        """Signal it, if it is still the process that we started."""
        if self.is_alive():
            with suppress(ProcessLookupError):
                os.kill(self.pid, number)

    def stop(self, number: signal.Signals, seconds: float) -> None:
        """Ask with a signal, wait, and after `seconds` kill its whole session. Nothing of it is left then."""
        self.send(number)
        if not self._gone_within(seconds):
            self.kill()

    def kill(self) -> None:
        """SIGKILL to it and to whatever it started in its session."""
        if self.is_alive():
            with suppress(ProcessLookupError):
                os.killpg(self.pid, signal.SIGKILL)
        self._gone_within(_KILLED_SECONDS)

    def _gone_within(self, seconds: float) -> bool:
        deadline = time.monotonic() + seconds
        while self.is_alive():
            if time.monotonic() > deadline:
                return False
            time.sleep(_POLL_SECONDS)
        return True


@dataclass(frozen=True)
class User:
    """Whom a child runs as. `prefix` is a command that changes to that user itself."""

    uid: int
    gid: int
    prefix: tuple[str, ...] = ()


def spawn(
    command: Sequence[str],
    log: Path,
    *,
    env: Mapping[str, str] | None = None,
    user: User | None = None,
    dies_with_parent: bool = False,
) -> Child:
    """Start a command in a session of its own, its output appended to `log`.

    `dies_with_parent` (Linux): SIGKILL when the thread that called this ends, for servers of a test run.
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    if log.exists() and log.stat().st_size > _LOG_KEPT_BYTES:
        log.rename(log.with_suffix(".log.1"))
    plain = user if user and not user.prefix else None
    with log.open("ab") as output:
        popen = subprocess.Popen(
            [*(user.prefix if user else ()), *command],
            stdin=subprocess.DEVNULL, stdout=output, stderr=output, env=env, cwd="/", start_new_session=True,
            preexec_fn=_die_with_parent if dies_with_parent and sys.platform == "linux" else None,
            user=plain.uid if plain else None, group=plain.gid if plain else None, extra_groups=[] if plain else None,
        )  # fmt: skip
    return Child(identity_of(popen.pid) or Identity(popen.pid, "gone"), log, popen)


def _die_with_parent() -> None:
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)


def wait_until(child: Child, name: str, is_ready: Callable[[], bool], seconds: float) -> None:
    """Wait for `is_ready()`, which must not raise.

    Raises:
        DiedDuringStart: the child ended first; the message carries the last line of its log.
        NotHealthyInTime: it runs, but `seconds` passed.
    """
    deadline = time.monotonic() + seconds
    while not is_ready():
        if not child.is_alive():
            raise died(child, name)
        if time.monotonic() > deadline:
            raise NotHealthyInTime(
                f"{name} is not healthy after {seconds:.0f} s; its log ends: {last_line(child.log)} ({child.log})"
            )
        time.sleep(_POLL_SECONDS)


def died(child: Child, name: str) -> StandaloneError:
    """The error that tells of a child's end, in one line."""
    tail = "\n".join(last_lines(child.log, 40))
    code = child.popen.poll() if child.popen else None
    how = f" with exit code {code}" if code is not None else ""
    why = f"{DISK_FULL}: {last_line(child.log)}" if is_disk_full(tail) else last_line(child.log)
    return DiedDuringStart(f"{name} ended during its start{how}: {why} ({child.log})")


def last_line(log: Path) -> str:
    """The last line of a log that says something, cut to a readable length."""
    lines = last_lines(log, 1)
    return lines[0][:300] if lines else "nothing was logged"


def last_lines(log: Path, count: int) -> list[str]:
    """The last lines of a log that say something; none when there is no log."""
    try:
        with log.open("rb") as file:
            file.seek(max(0, log.stat().st_size - 65536))
            lines = file.read().decode(errors="replace").splitlines()
    except OSError:
        return []
    return [line.strip() for line in lines if line.strip()][-count:]


def identity_of(pid: int) -> Identity | None:
    """The process that has this pid now; None when there is none, or only its unreaped remains."""
    started = _started_by_proc(pid) if Path("/proc/self/stat").exists() else _started_by_ps(pid)
    return Identity(pid, started) if started else None


def _started_by_proc(pid: int) -> str | None:
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return None
    return None if fields[0] in "ZX" else f"{boot}/{fields[19]}"


def _started_by_ps(pid: int) -> str | None:
    command = ["ps", "-o", "state=,lstart=", "-p", str(pid)]
    state, _, started = (
        subprocess.run(command, check=False, capture_output=True, text=True).stdout.strip().partition(" ")
    )
    return None if not started or state.startswith("Z") else started.strip()
