"""The newest frames of each watched run, for watchers that fall behind for a moment: under one budget of memory."""

from bisect import bisect_right
from collections import OrderedDict, deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import accumulate, islice

from juinie_shared.domain.ids import Seq
from juinie_stream_gateway.store import Event

AT_ONCE_BYTES = 256 * 1024
"""As much as a page: what a watcher is given is kept for it until it reads, and every slow watcher has its own."""
AT_ONCE_EVENTS = 1000
EVENT_BYTES = 200
"""What an event takes besides its frame's bytes: its objects and its place here. As much as a small frame."""


@dataclass(slots=True)
class _Kept:
    """Events of one run, never none. `size`: with what its events take besides their frames."""

    events: deque[Event] = field(default_factory=deque[Event])
    size: int = 0


class RecentFrames:
    """Contiguous last events by run. Over the budget, the runs that were quiet for longest lose theirs first."""

    def __init__(self, budget_bytes: int) -> None:
        self._budget = budget_bytes
        self._size = 0
        self._runs: OrderedDict[bytes, _Kept] = OrderedDict()

    def add(self, run: bytes, events: Sequence[Event]) -> None:
        """Keep these events, one at least, which follow those already kept. `run`: its key, here as in the others."""
        kept = self._runs.get(run)
        if kept is None:
            kept = self._runs[run] = _Kept()
        else:
            self._runs.move_to_end(run)
        kept.events.extend(events)
        size = 0
        for event in events:
            size += EVENT_BYTES + len(event.frame)
        kept.size += size
        self._size += size
        while self._size > self._budget:
            self._drop_oldest()

    def after(self, run: bytes, position: Seq) -> list[Event]:
        """Events that follow `position`, a page of them at most; none when its next one is not kept."""
        kept = self._runs.get(run)
        if kept is None or not kept.events[0].seq <= position + 1 <= kept.events[-1].seq:
            return []
        start = position + 1 - kept.events[0].seq
        events = list(islice(kept.events, start, start + AT_ONCE_EVENTS))
        if kept.size <= AT_ONCE_BYTES:
            return events
        sizes = [len(event.frame) for event in events]
        if sum(sizes) <= AT_ONCE_BYTES:
            return events
        return events[: max(1, bisect_right([*accumulate(sizes)], AT_ONCE_BYTES))]

    def forget(self, run: bytes) -> None:
        if kept := self._runs.pop(run, None):
            self._size -= kept.size

    def _drop_oldest(self) -> None:
        run, kept = next(iter(self._runs.items()))
        while kept.events and self._size > self._budget:
            size = EVENT_BYTES + len(kept.events.popleft().frame)
            kept.size -= size
            self._size -= size
        if not kept.events:
            del self._runs[run]
