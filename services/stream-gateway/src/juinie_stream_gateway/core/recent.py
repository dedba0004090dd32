"""The newest frames of each watched run, for watchers that fall behind for a moment: under one budget of memory."""

from collections import OrderedDict, deque
from collections.abc import Iterable
from itertools import islice

from juinie_shared.domain.ids import RunId, Seq
from juinie_stream_gateway.store import Event

AT_ONCE_BYTES = 256 * 1024
"""As much as a page: what a watcher is given is kept for it until it reads, and every slow watcher has its own."""
EVENT_BYTES = 200
"""What an event takes besides its frame's bytes: its objects and its place here. As much as a small frame."""


class RecentFrames:
    """Contiguous last events by run. Over the budget, the runs that were quiet for longest lose theirs first."""

    def __init__(self, budget_bytes: int) -> None:
        self._budget = budget_bytes
        self._size = 0
        self._runs: OrderedDict[RunId, deque[Event]] = OrderedDict()

    def add(self, run_id: RunId, events: Iterable[Event]) -> None:
        """Keep these events, which follow those already kept."""
        kept = self._runs.setdefault(run_id, deque())
        self._runs.move_to_end(run_id)
        for event in events:
            kept.append(event)
            self._size += _size_of(event)
        while self._size > self._budget:
            self._drop_oldest()

    def after(self, run_id: RunId, position: Seq) -> list[Event]:
        """Events that follow `position`, a page of them at most; none when its next one is not kept."""
        kept = self._runs.get(run_id)
        if not kept or not kept[0].seq <= position + 1 <= kept[-1].seq:
            return []
        events: list[Event] = []
        size = 0
        for event in islice(kept, position + 1 - kept[0].seq, None):
            size += len(event.frame)
            if events and size > AT_ONCE_BYTES:
                break
            events.append(event)
        return events

    def forget(self, run_id: RunId) -> None:
        self._size -= sum(map(_size_of, self._runs.pop(run_id, ())))

    def _drop_oldest(self) -> None:
        run_id, kept = next(iter(self._runs.items()))
        if kept:
            self._size -= _size_of(kept.popleft())
        if not kept:
            del self._runs[run_id]


def _size_of(event: Event) -> int:
    return EVENT_BYTES + len(event.frame)
