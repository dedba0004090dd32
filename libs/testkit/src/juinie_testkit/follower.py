"""A client that comes back until the end, as EventSource does, to one gateway or to any of several."""

import asyncio
from itertools import cycle
from typing import Any
from uuid import UUID

from juinie_testkit.frames import Frame
from juinie_testkit.waits import StillMissing
from juinie_testkit.watcher import Watcher

_COME_BACK_SECONDS = 0.05
_COMES_BACK_AFTER = frozenset({"cut", "unreachable", "dropped"})


class Follower:
    """Follows a run over as many connections as it takes. The events of all of them are its `events`."""

    def __init__(self, stream_base_urls: list[str], run_id: UUID | str, **arguments: Any) -> None:
        self._urls = cycle(stream_base_urls)
        self._next = Watcher(next(self._urls), run_id, **arguments)
        self.watchers: list[Watcher] = []
        self.finished = False

    @property
    def events(self) -> list[Frame]:
        return [frame for watcher in self.watchers for frame in watcher.events]

    @property
    def seqs(self) -> list[int]:
        """In the order they came, repetitions and all."""
        return [seq for watcher in self.watchers for seq in watcher.seqs]

    async def follow(self, timeout_seconds: float = 60) -> None:
        """Follow to the end of the run: stream.end and a clean end, or 204 for who had seen the last event.

        Raises:
            StillMissing: the end did not come, or a connection ended as none may.
            StreamViolation: a stream broke its rules.
        """
        try:
            async with asyncio.timeout(timeout_seconds):
                while not self.finished:
                    await self._connect()
        except TimeoutError as error:
            raise StillMissing(f"No end within {timeout_seconds:g} s: {self.describe()}.") from error

    def describe(self) -> str:
        """Where it stands, in one line."""
        last = self.watchers[-1].describe() if self.watchers else "it never connected"
        return f"after {len(self.watchers)} connections and seqs {_ranges(self.seqs)}: {last}"

    async def _connect(self) -> None:
        async with self._next as watcher:
            self.watchers.append(watcher)
            await watcher.until_closed(3600)
        if watcher.ended or watcher.status == 204:
            self.finished = True
        elif watcher.state not in _COMES_BACK_AFTER:
            raise StillMissing(f"A stream may not end like this: {self.describe()}.")
        else:
            await asyncio.sleep(_COME_BACK_SECONDS)
            self._next = watcher.resume(next(self._urls))


def _ranges(seqs: list[int]) -> str:
    """`1..7, 7..9`: as they came."""
    ranges: list[list[int]] = []
    for seq in seqs:
        if ranges and seq == ranges[-1][1] + 1:
            ranges[-1][1] = seq
        else:
            ranges.append([seq, seq])
    return ", ".join(f"{first}..{last}" for first, last in ranges) or "none"
