"""Many watchers in one process, as cheap as Python makes them: each knows the last id that it was sent, and nothing else.

They share the machine with what they load; what they use up is not counted.
"""

import asyncio
import time
from collections.abc import Callable, Sequence
from typing import override

from reach import connect

_LOOK_SECONDS = 0.005


OURS = (b"\nid: ", b"\n\n")
"""What stands before and after the number of an event in a frame of ours."""


class Watcher(asyncio.Protocol):
    def __init__(
        self, request: bytes, note: Callable[[bytes], None] | None, marks: tuple[bytes, bytes]
    ) -> None:
        self.last_id = 0
        self.head = False
        self.lost = False
        self._request, self._note, self._rest = request, note, b""
        self._before, self._after = marks

    @override
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport
        transport.write(self._request)  # pyright: ignore[reportAttributeAccessIssue] - it is one to write to

    @override
    def data_received(self, data: bytes) -> None:
        if self._note is not None:
            self._note(data)
        start = data.rfind(self._before)
        end = data.find(self._after, start)
        if start < 0 or end < 0 or not data.endswith(b"\n\n\r\n"):
            self._slowly(data)
            return
        self.head, self._rest = True, b""
        self.last_id = int(data[start + len(self._before) : end])

    def _slowly(self, data: bytes) -> None:
        """A piece that ends within a frame, the head, or what has no id."""
        self._rest = (self._rest + data)[-1_000:]
        self.head = True
        _, found, after = self._rest.rpartition(self._before)
        number, ends, _ = after.partition(self._after)
        if found and ends:
            self.last_id = max(self.last_id, int(number))

    @override
    def connection_lost(self, exc: Exception | None) -> None:
        self.lost = True


class Crowd:
    """Watchers of one server. `note` is called with what one of `every` receives. `marks`: what stands before and after an event's
    number in its frames.
    """

    def __init__(
        self,
        port: int,
        requests: Sequence[bytes],
        note: Callable[[bytes], None] | None = None,
        every: int = 50,
        marks: tuple[bytes, bytes] = OURS,
    ) -> None:
        self._port, self._requests, self._note, self._every = port, requests, note, every
        self._marks = marks
        self._watchers: list[Watcher] = []

    def __len__(self) -> int:
        return len(self._watchers)

    async def come(self, at_once: int = 50) -> float:
        """All connect, and wait for the head of their answer. Gives the seconds that took."""
        began = time.perf_counter()
        waiting = asyncio.Semaphore(at_once)

        async def one(number: int, request: bytes) -> Watcher:
            note = self._note if number % self._every == 0 else None
            async with waiting:
                watcher = await connect(lambda: Watcher(request, note, self._marks), self._port)
                while not watcher.head:
                    await asyncio.sleep(_LOOK_SECONDS)
                return watcher

        self._watchers = await asyncio.gather(*(one(*each) for each in enumerate(self._requests)))
        return time.perf_counter() - began

    async def until(self, last_id: int, seconds: float = 60.0) -> None:
        """Until all have had the event with this id.

        Raises:
            AssertionError: one was sent away, or has not got it in time.
        """
        until = time.perf_counter() + seconds
        behind = self._watchers
        while behind := [watcher for watcher in behind if watcher.last_id < last_id]:
            assert not any(watcher.lost for watcher in behind), "A watcher was sent away."
            assert time.perf_counter() < until, (
                f"{len(behind)} watchers are behind: {behind[0].last_id} of {last_id}"
            )
            await asyncio.sleep(_LOOK_SECONDS)

    async def leave(self) -> None:
        for watcher in self._watchers:
            watcher.transport.close()
        while not all(watcher.lost for watcher in self._watchers):
            await asyncio.sleep(_LOOK_SECONDS)
