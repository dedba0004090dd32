"""Real programs as child processes that no Python package has: the system has them, or the test fails and says how to get them."""

import os
import shutil
import socket
import subprocess
import time
from pathlib import Path

_START_SECONDS = 20
_END_SECONDS = 10


class NotInstalled(AssertionError):
    """A program is not on this machine. The message says how to get it; `skip` is the variable that leaves such tests out."""

    def __init__(self, program: str, *, on_macos: bool = True) -> None:
        self.program, self.skip = program, f"JUINIE_SKIP_{program.upper()}_TESTS"
        brew = f", brew install {program} (macOS)" if on_macos else ""
        super().__init__(
            f"This test needs {program}: apt-get install {program} (Debian, Ubuntu){brew}, "
            f"or skip such tests with {self.skip}=1."
        )


class InstalledProgram:
    """One that listens on `port` of 127.0.0.1 until it is ended."""

    def __init__(self, program: str, arguments: list[str], port: int, log: Path) -> None:
        self.program, self.port, self.log = program, port, log
        self._arguments = arguments
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it, and wait until it listens.

        Raises:
            NotInstalled: it is not on this machine, in PATH or where Debian has such programs.
        """
        path = os.pathsep.join([os.environ.get("PATH", ""), "/usr/sbin", "/usr/local/sbin"])
        found = shutil.which(self.program, path=path)
        if found is None:
            raise NotInstalled(self.program)
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                [found, *self._arguments], stdin=subprocess.DEVNULL, stdout=log, stderr=log
            )
        self._until_it_listens(self._process)

    def end(self) -> None:
        """End it at once, with the children that it has."""
        if self._process is not None:
            self._process.terminate()
            try:
                self._process.wait(_END_SECONDS)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait(_END_SECONDS)

    def _until_it_listens(self, process: subprocess.Popen[bytes]) -> None:
        deadline = time.monotonic() + _START_SECONDS
        while process.poll() is None and time.monotonic() < deadline:
            try:
                socket.create_connection(("127.0.0.1", self.port), timeout=1).close()
            except OSError:
                time.sleep(0.02)
            else:
                return
        raise AssertionError(f"{self.program} did not start:\n{self.log.read_text(errors='replace')}")
