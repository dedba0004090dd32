"""The newest frames of each watched run, for watchers that fall behind for a moment: under one budget of memory."""

from bisect import bisect_right
from collections import OrderedDict, deque
from collections.abc import Sequence
from itertools import accumulate, islice

from juinie_shared.domain.ids import Seq
from juinie_stream_gateway.store import Event

AT_ONCE_BYTES = 256 * 1024
"""As much as a page: what a watcher is given is kept for it until it reads, and every slow watcher has its own."""
AT_ONCE_EVENTS = 1000
EVENT_BYTES = 200
"""What an event takes besides its frame's bytes: its objects and its place here. As much as a small frame."""


class RecentFrames:
    """Contiguous last events by run. Over the budget, the runs that were quiet for longest lose theirs first."""

    def __init__(self, budget_bytes: int) -> None:
        self._budget = budget_bytes
        self._size = 0
        self._runs: OrderedDict[bytes, deque[Event]] = OrderedDict()

    def add(self, run: bytes, events: Sequence[Event]) -> None:
        """Keep these events, which follow those already kept. `run`: its key, here as in the others."""
        kept = self._runs.get(run)
        if kept is None:
            kept = self._runs[run] = deque()
        else:
            self._runs.move_to_end(run)
        kept.extend(events)
        for event in events:
            self._size += EVENT_BYTES + len(event.frame)
        while self._size > self._budget:
            self._drop_oldest()

    def after(self, run: bytes, position: Seq) -> list[Event]:
        """Events that follow `position`, a page of them at most; none when its next one is not kept."""
        kept = self._runs.get(run)
        if not kept or not kept[0].seq <= position + 1 <= kept[-1].seq:
            return []
        start = position + 1 - kept[0].seq
        events = list(islice(kept, start, start + AT_ONCE_EVENTS))
        sizes = [len(event.frame) for event in events]
        if sum(sizes) <= AT_ONCE_BYTES:
            return events
        return events[: max(1, bisect_right([*accumulate(sizes)], AT_ONCE_BYTES))]

    def forget(self, run: bytes) -> None:
        self._size -= sum(map(_size_of, self._runs.pop(run, ())))

    def _drop_oldest(self) -> None:
        run, kept = next(iter(self._runs.items()))
        while kept and self._size > self._budget:
            self._size -= EVENT_BYTES + len(kept.popleft().frame)
        if not kept:
            del self._runs[run]


def _size_of(event: Event) -> int:
    return EVENT_BYTES + len(event.frame)
