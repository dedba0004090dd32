"""What processes have used up, as the kernel counts it: all threads, those that have ended as well.

The clock of a process (`clock_getcpuclockid(3)`) sums the same run times that `/proc/PID/schedstat` shows of one thread;
`/proc/PID/stat` counts in hundredths of a second, and loses what is shorter.
"""

import os
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

_SCHEDULER_CLOCK = 2


def cpu_seconds(pids: Iterable[int]) -> float:
    """Of these processes together, since each began. One that is gone counts nothing."""
    return sum(map(_cpu_of, pids))


def _cpu_of(pid: int) -> float:
    try:
        return time.clock_gettime((~pid << 3) | _SCHEDULER_CLOCK)
    except OSError:
        return 0.0


def ended_seconds(pid: int) -> float:
    """Of the children of this process that have ended, and of theirs, to a hundredth (proc_pid_stat(5))."""
    return sum(_ticks(pid)[2:]) / os.sysconf("SC_CLK_TCK")


def kernel_seconds(pids: Iterable[int]) -> float:
    """Of what `cpu_seconds` are, those in the kernel, as far as its ticks see them."""
    return sum(_ticks(pid)[1] for pid in pids) / os.sysconf("SC_CLK_TCK")


def _ticks(pid: int) -> list[int]:
    """User and system time of a process, and of its children that have ended."""
    try:
        told = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return [0, 0, 0, 0]
    return list(map(int, told.rpartition(") ")[2].split()[11:15]))


def tree_seconds(pid: int) -> float:
    """Of a process, all that descend from it, and those of them that have ended: each once, whenever it ended."""
    while True:
        ended = ended_seconds(pid)
        living = cpu_seconds(family(pid))
        if ended_seconds(pid) == ended:
            return living + ended


def family(pid: int) -> list[int]:
    """A process and all that descend from it."""
    try:
        tasks = list(Path(f"/proc/{pid}/task").iterdir())
        children = [int(child) for task in tasks for child in (task / "children").read_text().split()]
    except OSError:
        return []
    return [pid, *(member for child in children for member in family(child))]


def pss_bytes(pid: int, kind: str = "Pss") -> int:
    """Its memory, with its share of what it has in common with others. `Pss_Anon`: without files, whose pages come and go."""
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(f"{kind}:")) * 1024


def is_stopped(pid: int) -> bool:
    """By a signal, as SIGSTOP (proc_pid_stat(5))."""
    return Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2].startswith("T")


@dataclass(frozen=True, slots=True)
class Calls:
    """Read and write calls of a process since it began (proc_pid_io(5)), and the bytes that it wrote."""

    reads: int
    writes: int
    bytes_written: int

    def __sub__(self, before: "Calls") -> "Calls":
        return Calls(
            self.reads - before.reads, self.writes - before.writes, self.bytes_written - before.bytes_written
        )


def calls(pid: int) -> Calls:
    """To files and sockets alike; `send` and `recv` are not among them, but uvloop uses neither."""
    told = _io(pid)
    return Calls(told["syscr"], told["syscw"], told["wchar"])


def bytes_read(pid: int) -> int:
    """Likewise, since it began."""
    return _io(pid)["rchar"]


def _io(pid: int) -> dict[str, int]:
    lines = Path(f"/proc/{pid}/io").read_text().splitlines()
    return {name: int(value) for name, value in (line.split(": ") for line in lines)}
