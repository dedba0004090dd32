"""What one test session starts, it starts once and stops itself, however many workers share it.

The session is a directory: a lock and a note for each server. The process that made it (pytest-xdist's controller, or
the only process) stops what the notes name. Sessions whose process is gone are swept by the next one that starts a
server, so a killed run leaves nothing behind for long.
"""

import contextlib
import fcntl
import json
import os
import re
import shutil
import tempfile
from collections.abc import Callable, Generator
from pathlib import Path
from typing import Any

ENVIRONMENT_NAME = "JUINIE_TEST_SESSION"

_PREFIX = "juinie-test-"
_DIRECTORY = re.compile(_PREFIX + r"(\d+)-(.*)")

type Note = dict[str, Any]
"""What is remembered of a server: how to reach it, and how to stop it."""


class CannotHave(Exception):
    """A server cannot be had in one way; the message is half a line that says why."""


class BackingSession:
    """The directory of a session. `owned` by the process that made it."""

    def __init__(self, directory: Path, owned: bool) -> None:
        self.directory = directory
        self.owned = owned

    @classmethod
    def join_or_begin(cls) -> "BackingSession":
        """The session that the environment names (workers inherit it), else a new one of this process."""
        if name := os.environ.get(ENVIRONMENT_NAME):
            return cls(Path(name), owned=False)
        directory = Path(tempfile.mkdtemp(prefix=f"{_PREFIX}{os.getpid()}-"))
        os.environ[ENVIRONMENT_NAME] = str(directory)
        return cls(directory, owned=True)

    @property
    def name(self) -> str:
        """The session's name: safe within the names of databases and topics, and told apart by its process id."""
        return self.directory.name.replace("-", "_").lower()

    def once(self, what: str, make: Callable[[], Note]) -> Note:
        """The note called `what`; the first who asks makes it, everybody else waits and reads it.

        Raises:
            CannotHave: `make` raised it, here or in the process that came first.
        """
        with self._locked(what):
            path = self.directory / f"{what}.json"
            if not path.exists():
                try:
                    note = make()
                except CannotHave as error:
                    note = {"cannot_have": str(error)}
                path.write_text(json.dumps(note))
            note = json.loads(path.read_text())
        if "cannot_have" in note:
            raise CannotHave(note["cannot_have"])
        return note

    def notes(self) -> dict[str, Note]:
        """All notes by name."""
        return {path.stem: json.loads(path.read_text()) for path in sorted(self.directory.glob("*.json"))}

    def end(self) -> None:
        """Forget the session. What its notes name must be stopped by now."""
        shutil.rmtree(self.directory, ignore_errors=True)
        if os.environ.get(ENVIRONMENT_NAME) == str(self.directory):
            del os.environ[ENVIRONMENT_NAME]

    @contextlib.contextmanager
    def _locked(self, what: str) -> Generator[None]:
        with (self.directory / f"{what}.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield


def claim_dead_sessions() -> list[BackingSession]:
    """Sessions on this machine whose process is gone, now this process's to end: nobody else gets the same ones."""
    claimed: list[BackingSession] = []
    for directory in Path(tempfile.gettempdir()).glob(f"{_PREFIX}*"):
        match = _DIRECTORY.fullmatch(directory.name)
        if match and not is_alive(int(match[1])):
            ours = directory.with_name(f"{_PREFIX}{os.getpid()}-{match[2]}")
            with contextlib.suppress(OSError):  # somebody else was faster
                claimed.append(BackingSession(directory.rename(ours), owned=True))
    return claimed


def is_alive(pid: int) -> bool:
    """Whether a process of this id exists."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
