"""Watchers that come all at once, and come again when they are sent away, in a process that gives way to all others.

    python returning.py PORT KEY AFTER_SEQ LAST_SEQ WATCHERS [--host HOST --anywhere] < lines

The first line names their runs, which they share out. `come`: all connect; the answer says after how many seconds each had its run's event
LAST_SEQ, and how often one was told to come again later, by reason. `leave`: all cut their connections. They come to this machine; for
another one, which they may come to from a machine of their own, `--anywhere` has to be said.
"""

import argparse
import asyncio
import json
import re
import sys
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import override

from reach import HERE, NotLoopback, connect, refuse_strangers

from juinie_shared.runtime.process import allow_descriptors
from juinie_testkit.manners import give_way
from juinie_testkit.raw_stream import stream_request

_REASON = re.compile(rb'"reason": ?"([^"]*)"')
_RETRY = re.compile(rb"retry: (\d+)\n")
_KEPT_BYTES = 2_000


@dataclass(frozen=True, slots=True)
class Place:
    """Where they come to, and what they wait for."""

    port: int
    key: str
    after_seq: int
    last_seq: int
    host: str = HERE
    anywhere: bool = False


class _Watcher(asyncio.Protocol):
    """`had`: called once, with whether the wanted event came before the connection was over."""

    def __init__(self, request: bytes, wanted: bytes, had: Callable[["_Watcher", bool], None]) -> None:
        self._request, self._wanted, self._had = request, wanted, had
        self.tail = b""
        self.transport: asyncio.Transport
        self._waits = True

    @override
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport  # pyright: ignore[reportAttributeAccessIssue] - it is one to write to
        self.transport.write(self._request)

    @override
    def data_received(self, data: bytes) -> None:
        if not self._waits:
            return
        self.tail = (self.tail + data)[-_KEPT_BYTES - len(data) :]
        if self._wanted in self.tail:
            self._tell(True)
        self.tail = self.tail[-_KEPT_BYTES:]

    @override
    def connection_lost(self, exc: Exception | None) -> None:
        if self._waits:
            self._tell(False)

    def _tell(self, had: bool) -> None:
        self._waits = False
        self._had(self, had)


class Returning:
    """All of them."""

    def __init__(self, place: Place, runs: list[str], watchers: int) -> None:
        self._place, self._wanted = place, f"\nid: {place.last_seq}\n".encode()
        self._requests = [
            stream_request(runs[number % len(runs)], place.key, place.after_seq) for number in range(watchers)
        ]
        self._there = list[_Watcher]()
        self.sent_away = Counter[str]()

    async def come(self) -> float:
        """Seconds until all have had what they want."""
        began, self.sent_away = time.perf_counter(), Counter[str]()
        self._there = await asyncio.gather(*map(self._one, self._requests))
        return time.perf_counter() - began

    async def leave(self) -> None:
        for watcher in self._there:
            watcher.transport.abort()
        self._there = []

    async def _one(self, request: bytes) -> _Watcher:
        loop = asyncio.get_running_loop()
        while True:
            came: asyncio.Future[bool] = loop.create_future()
            watcher = await connect(
                lambda came=came: _Watcher(request, self._wanted, lambda _, had: came.set_result(had)),
                self._place.port,
                self._place.host,
                anywhere=self._place.anywhere,
            )
            if await came:
                return watcher
            reason = _REASON.search(watcher.tail)
            self.sent_away[reason[1].decode() if reason else "no reason"] += 1
            told = _RETRY.findall(watcher.tail)
            await asyncio.sleep(int(told[-1]) / 1000 if told else 1.0)


async def main(place: Place, watchers: int) -> None:
    lines = asyncio.StreamReader(limit=1 << 24)
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(lines), sys.stdin)
    crowd = Returning(place, (await lines.readline()).decode().split(), watchers)
    while word := await lines.readline():
        if word.strip() == b"come":
            seconds = await crowd.come()
            print(json.dumps({"seconds": seconds, "sent_away": crowd.sent_away}), flush=True)
        else:
            await crowd.leave()
            print("{}", flush=True)


def _told() -> tuple[Place, int]:
    """Where to, and how many, as the command says."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("port", type=int)
    parser.add_argument("key")
    for name in ("after_seq", "last_seq", "watchers"):
        parser.add_argument(name, type=int)
    parser.add_argument("--host", default=HERE)
    parser.add_argument("--anywhere", action="store_true", help="also to a machine that is not this one")
    given = parser.parse_args()
    try:
        refuse_strangers(given.host, anywhere=given.anywhere)
    except NotLoopback as stranger:
        parser.error(str(stranger))
    place = Place(given.port, given.key, given.after_seq, given.last_seq, given.host, given.anywhere)
    return place, given.watchers


if __name__ == "__main__":
    import uvloop

    where, count = _told()
    give_way()
    allow_descriptors()
    uvloop.run(main(where, count))
