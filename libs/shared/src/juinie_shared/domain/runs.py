"""A run's life: pending → running → one of four ends that never change."""

from enum import StrEnum


class RunStatus(StrEnum):
    PENDING = "pending"
    RUNNING = "running"
    SUCCESS = "success"
    ERROR = "error"
    CANCELLED = "cancelled"
    TIMEOUT = "timeout"

    @property
    def terminal(self) -> bool:
        return self in TERMINAL


TERMINAL = frozenset({RunStatus.SUCCESS, RunStatus.ERROR, RunStatus.CANCELLED, RunStatus.TIMEOUT})


class Scope(StrEnum):
    """What an API key may do: read runs and streams, write to runs, administer the tenant's outbox."""

    READ = "read"
    WRITE = "write"
    ADMIN = "admin"
