"""Events to send: each differs from every other of its run, and all together hold what JSON makes difficult."""

import random

from juinie.events import RunEvent
from juinie.torture.leases import EXPIRED, STARTED, Turn

TYPES = ("torture", "torture", "TEXT_MESSAGE_CONTENT", "tool/call.result-2", "x" * 128)
CREATED = "run.created"
_TEXTS = (
    "", "plain", "é ü ß", "🜁🜂", "\u2028 and \u2029", '\\" and \\\\', "\\n\\r\\t", "\\u0000", "data: x\\n\\nid: 7", "x" * 200,
)  # fmt: skip
_WITH_A_LARGE_ONE = 0.02
"""Of all appends; its size is near the limit of 256 KiB."""
_LARGE_BYTES = (50_000, 200_000)
_NUMBERS = ("0", "-1", "1.0", "9007199254740993", "1e400", "true", "null", "[]")


def batch(chance: random.Random, writer: str, number: int, size: int) -> tuple[bytes, list[bytes]]:
    """A request's body, and the contents that a reader has to see."""
    named = [(chance.choice(TYPES), _data(chance, f"{writer}.{number}.{index}")) for index in range(size)]
    if chance.random() < _WITH_A_LARGE_ONE:
        named[-1] = named[-1][0], _large(chance, f"{writer}.{number}.large")
    events = b",".join(b'{"type":"%b","data":%b}' % (name.encode(), one) for name, one in named)
    return b'{"events":[%b]}' % events, [_content(name, one) for name, one in named]


def content(event: RunEvent) -> bytes | None:
    """What an event says, without its seq and time; None for Juinie's own."""
    return None if event.type.startswith("run.") else _content(event.type, event.raw_data)


def is_first(event: RunEvent) -> bool:
    """It says that the run was created."""
    return event.type == CREATED


def turn(event: RunEvent) -> Turn | None:
    """What an event says of who holds the run."""
    if event.type not in {STARTED, EXPIRED}:
        return None
    return Turn(event.type, event.data["attempt"], event.data.get("worker_id"))


def _content(name: str, data: bytes) -> bytes:
    return b"%b %b" % (name.encode(), data)


def _data(chance: random.Random, name: str) -> bytes:
    return f'{{"of":"{name}","text":"{chance.choice(_TEXTS)}","n":{chance.choice(_NUMBERS)}}}'.encode()


def _large(chance: random.Random, name: str) -> bytes:
    return b'{"of":"%b","text":"%b"}' % (name.encode(), b"y" * chance.randint(*_LARGE_BYTES))
