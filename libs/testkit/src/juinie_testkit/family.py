"""Processes that a process has started (Linux)."""

from contextlib import suppress
from pathlib import Path


def children_of(pid: int | None) -> set[int]:
    """Of a process; empty when it is gone."""
    found: set[int] = set()
    with suppress(OSError):
        for task in Path(f"/proc/{pid}/task").iterdir():
            found |= set(map(int, (task / "children").read_text().split()))
    return found


def is_there(pid: int) -> bool:
    """Whether it runs, or is stopped. One that has ended and was not waited for is gone."""
    with suppress(OSError):
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
        return state not in {"Z", "X"}
    return False
