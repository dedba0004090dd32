"""A run's log in memory: what `Seed` writes and a reader sees, without a database."""

from dataclasses import dataclass, field
from uuid import UUID

from juinie_shared.domain.ids import RunId, new_run_id


@dataclass(frozen=True, slots=True)
class LoggedEvent:
    """An event as a reader sees it. `json` is its whole line, as pages, Kafka and SSE carry it."""

    seq: int
    type: str
    json: str


@dataclass
class _Run:
    events: list[LoggedEvent] = field(default_factory=list[LoggedEvent])
    status: str = "pending"
    unsent: list[tuple[int, int]] = field(default_factory=list[tuple[int, int]])


class FakeLog:
    """Runs, their events, and the ranges that nobody has published. Data are given as JSON text."""

    TIME = "2026-11-23T12:00:00.000000Z"

    def __init__(self) -> None:
        self._runs: dict[UUID, _Run] = {}

    async def create(self) -> RunId:
        """A new run, whose first event is `run.created`."""
        run_id = new_run_id()
        self._runs[run_id] = _Run()
        await self.append(
            run_id, ("run.created", '{"agent":"agent","thread_id":null,"input":null,"metadata":{}}')
        )
        return run_id

    async def append(self, run_id: UUID, *events: tuple[str, str]) -> tuple[int, int]:
        """Append events. Gives the first and the last seq. LookupError for an unknown run."""
        run = self._runs[run_id]
        first = len(run.events) + 1
        for seq, (event_type, data) in enumerate(events, first):
            line = f'{{"seq":{seq},"type":"{event_type}","time":"{self.TIME}","data":{data}}}'
            run.events.append(LoggedEvent(seq, event_type, line))
        run.unsent.append((first, len(run.events)))
        return first, len(run.events)

    async def finish(self, run_id: UUID, status: str = "success") -> int:
        """End the run. Gives the seq of `run.finished`."""
        _, seq = await self.append(
            run_id, ("run.finished", f'{{"status":"{status}","output":null,"error":null}}')
        )
        self._runs[run_id].status = status
        return seq

    async def read_after(self, run_id: UUID, seq: int, limit: int = 500) -> list[LoggedEvent]:
        """Up to `limit` events after `seq`, in order."""
        return self._runs[run_id].events[seq : seq + limit]

    async def last_seq(self, run_id: UUID) -> int:
        return len(self._runs[run_id].events)

    async def status(self, run_id: UUID) -> str:
        return self._runs[run_id].status

    async def unsent(self, run_id: UUID) -> list[tuple[int, int]]:
        """The ranges that wait to be published, in order."""
        return list(self._runs[run_id].unsent)

    async def mark_sent(self, run_id: UUID, first_seq: int) -> None:
        """Forget the range that begins at `first_seq`; one that is gone is fine."""
        run = self._runs[run_id]
        run.unsent = [unsent for unsent in run.unsent if unsent[0] != first_seq]
