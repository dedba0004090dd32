"""Sends cases over raw sockets and says what came of each: the statuses, whether it hung, whether the port was there.

A case hangs when its connection is still open 5 s after we have closed our side of it. A request that is not complete
may be waited for by the server: so our side is closed as soon as nothing more comes.
"""

import asyncio
import random
import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field

QUIET_SECONDS = 0.25
"""Nothing came for so long: nothing will, before we say that we are done."""
ANSWERED_QUIET_SECONDS = 0.05
"""After a first answer."""
HANG_SECONDS = 5.0
_MOST_BYTES = 256 * 1024

_STATUS = re.compile(rb"HTTP/1\.[01] (\d{3}) [^\r\n]*\r\n")


@dataclass
class Tally:
    """What came of the cases. `failures` has those that must not be, each with its bytes."""

    cases: Counter[str] = field(default_factory=Counter[str])
    statuses: Counter[int] = field(default_factory=Counter[int])
    silent: int = 0
    """Closed without an answer: what was sent was no whole request."""
    failures: list[str] = field(default_factory=list[str])

    def take(self, kind: str, sent: bytes, received: bytes) -> None:
        """Count one case by what came back."""
        self.cases[kind] += 1
        answers = _STATUS.findall(received)
        self.silent += not answers
        for status in answers:
            self.statuses[int(status)] += 1
            if status >= b"500":
                self.fail(kind, f"answered {status.decode()}", sent, received)

    def fail(self, kind: str, what: str, sent: bytes, received: bytes = b"") -> None:
        answered = f" -> {received[-1000:]!r}" if received else ""
        self.failures.append(f"{kind} {what}: {sent[:2000]!r}{answered}")

    def __str__(self) -> str:
        kinds = ", ".join(f"{kind} {count}" for kind, count in sorted(self.cases.items()))
        statuses = ", ".join(f"{status}: {count}" for status, count in sorted(self.statuses.items()))
        return f"{self.cases.total()} cases ({kinds}); answers {statuses}; none {self.silent}"


async def knock(
    port: int,
    cases: Iterable[tuple[str, bytes]],
    dice: random.Random,
    tally: Tally | None = None,
    at_once: int = 32,
) -> Tally:
    """Send every case to 127.0.0.1:`port`, each on a connection of its own, so many at once. Gives `tally`, or a new one."""
    tally, left = tally or Tally(), iter(cases)

    async def work() -> None:
        for kind, data in left:
            await _one(port, kind, data, dice, tally)

    async with asyncio.TaskGroup() as tasks:
        for _ in range(at_once):
            tasks.create_task(work())
    return tally


async def _one(port: int, kind: str, data: bytes, dice: random.Random, tally: Tally) -> None:
    try:
        async with asyncio.timeout(HANG_SECONDS):
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
    except (OSError, TimeoutError):
        tally.fail(kind, "found the port closed", data)
        return
    try:
        tally.take(kind, data, await _exchange(reader, writer, data, dice))
    except TimeoutError:
        tally.fail(kind, "hung", data)
    finally:
        writer.transport.abort()


async def _exchange(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, data: bytes, dice: random.Random
) -> bytes:
    """All that comes back: until it is quiet, and then to the end, which has to come soon."""
    received = bytearray()
    try:
        await _send(writer, data, dice)
        while len(received) < _MOST_BYTES and (
            more := await _within(reader, ANSWERED_QUIET_SECONDS if received else QUIET_SECONDS)
        ):
            received += more
        if _is_a_stream_with_more_behind_it(data):
            return bytes(received)
        writer.write_eof()
        while len(received) < _MOST_BYTES and (
            more := await asyncio.wait_for(reader.read(65536), HANG_SECONDS)
        ):
            received += more
    except (ConnectionError, OSError) as error:
        if isinstance(error, TimeoutError):
            raise
    return bytes(received)


def _is_a_stream_with_more_behind_it(data: bytes) -> bool:
    """Half a close lies unread behind the second request, and the stream goes on to who may still read: no hang."""
    return b"/stream" in data and data.count(b" HTTP/1.") > 1


async def _send(writer: asyncio.StreamWriter, data: bytes, dice: random.Random) -> None:
    """In one piece, or in several that arrive one by one."""
    pieces = [data]
    if dice.random() < 0.2:
        at = dice.randrange(len(data) + 1)
        pieces = [data[:at], data[at:]]
    for piece in pieces:
        writer.write(piece)
        async with asyncio.timeout(HANG_SECONDS):
            await writer.drain()
        await asyncio.sleep(0)


async def _within(reader: asyncio.StreamReader, seconds: float) -> bytes:
    try:
        return await asyncio.wait_for(reader.read(65536), seconds)
    except TimeoutError:
        return b""
