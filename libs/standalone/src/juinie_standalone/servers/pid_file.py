"""`postmaster.pid`: who runs on a cluster, and which shared memory its sessions hold."""

import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

_SEGMENTS = Path("/proc/sysvipc/shm")
_SHMID, _NATTCH = 1, 6
"""Columns of `_SEGMENTS` (Linux, proc(5))."""


@dataclass(frozen=True)
class PidFile:
    """What the file says. `pid` is None when there is none, or nothing in it: a full disk or a power cut did that."""

    path: Path
    pid: int | None
    segment: str | None

    @classmethod
    def read(cls, cluster: Path) -> "PidFile":
        path = cluster / "postmaster.pid"
        try:
            lines = path.read_text().splitlines()
        except OSError:
            lines = []
        pid = lines[0].strip() if lines else ""
        key_and_id = lines[6].split() if len(lines) > 6 else []
        return cls(path, int(pid) if pid.isdigit() else None, key_and_id[1] if len(key_and_id) == 2 else None)

    def attached(self) -> bool:
        """Whether a process still holds the segment, the postmaster itself or a session that outlived it."""
        if self.segment is None or not _SEGMENTS.exists():
            return False
        rows = (line.split() for line in _SEGMENTS.read_text().splitlines()[1:])
        return any(row[_SHMID] == self.segment and row[_NATTCH] != "0" for row in rows)

    def remove(self) -> None:
        """The file and the segment. Where the system does not tell who holds it, that stays: Postgres sees to it."""
        if self.segment is not None and _SEGMENTS.exists() and shutil.which("ipcrm"):
            subprocess.run(["ipcrm", "-m", self.segment], check=False, capture_output=True)
        self.path.unlink(missing_ok=True)
