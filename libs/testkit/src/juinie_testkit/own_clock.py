"""A wall clock of a process's own, which may be wrong and be set while the process runs: the real libfaketime, in it.

Only what tells the time of day is changed. Monotonic time, and the times of files, stay as they are.
"""

import re
import shutil
import subprocess
from pathlib import Path

from juinie_testkit.installed import NotInstalled

_SHARED_MEMORY = Path("/dev/shm")  # noqa: S108 - where libfaketime puts it
_OF_A_PROCESS = re.compile(r"(?:sem\.)?faketime_(?:sem|shm)_(\d+)")


class OwnClock:
    """The clock of the processes that are started with `environment`. It goes as the machine's does, `set` seconds ahead.

    Raises:
        NotInstalled: there is no libfaketime on this machine.
    """

    def __init__(self, file: Path) -> None:
        self._file = file
        self.set(0)
        remove_left_behind()
        self.environment = {
            "LD_PRELOAD": _library(),
            "FAKETIME_TIMESTAMP_FILE": str(file),
            "FAKETIME_NO_CACHE": "1",
            "FAKETIME_DONT_FAKE_MONOTONIC": "1",
            "NO_FAKE_STAT": "1",  # or every .pyc would be older than its source
        }

    def set(self, seconds_ahead: int) -> None:
        """From now on it is so far ahead of the machine's, or with a negative number behind."""
        whole = self._file.with_suffix(".new")
        whole.write_text(f"{seconds_ahead:+d}\n")
        whole.rename(self._file)  # nobody reads half a file


def remove_left_behind() -> None:
    """Remove what libfaketime made for processes that ended as services do, by `_exit`. It would refuse the next one of that id."""
    for file in _SHARED_MEMORY.iterdir():
        of = _OF_A_PROCESS.fullmatch(file.name)
        if of and not Path(f"/proc/{of[1]}").exists():
            file.unlink(missing_ok=True)


def _library() -> str:
    """As its own wrapper would load it."""
    wrapper = shutil.which("faketime")
    if wrapper is None:
        raise NotInstalled("faketime", on_macos=False)
    asked = [wrapper, "-m", "-f", "+0", "printenv", "LD_PRELOAD"]
    return subprocess.run(asked, capture_output=True, text=True, check=True).stdout.strip()
