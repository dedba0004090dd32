"""What a process holds: memory, descriptors, threads. For seeing that it has let go of all that a load made it take."""

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Cost:
    """What a process holds at a moment."""

    resident_bytes: int
    descriptors: int
    threads: int

    @classmethod
    def of(cls, pid: int) -> "Cost":
        """Ask Linux."""
        status: dict[str, str] = {}
        for line in Path(f"/proc/{pid}/status").read_text().splitlines():
            name, _, value = line.partition(":")
            status[name] = value
        return cls(
            resident_bytes=int(status["VmRSS"].split()[0]) * 1024,
            descriptors=sum(1 for _ in Path(f"/proc/{pid}/fd").iterdir()),
            threads=int(status["Threads"]),
        )

    def __str__(self) -> str:
        return (
            f"{self.resident_bytes / 2**20:.1f} MiB, {self.descriptors} descriptors, {self.threads} threads"
        )
