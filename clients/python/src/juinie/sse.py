"""Juinie's stream, from bytes to frames: LF line ends, one `data` line a frame, as the protocol page promises.

The bytes of `data` stay as they came, so that they can be held against what a page and Kafka have. What is cut off in
the middle of a frame is never a frame.
"""

from typing import NamedTuple

_RETRY_SECONDS = 2.0


class Frame(NamedTuple):
    """`name` is empty for a run event. `id` is the position after it, None where the frame has none."""

    name: str
    data: bytes
    id: int | None


class FrameReader:
    """Takes a body in pieces of any size. `retry_seconds` is what the server said last."""

    def __init__(self) -> None:
        self.retry_seconds = _RETRY_SECONDS
        self._rest = b""

    def feed(self, piece: bytes) -> list[Frame]:
        """The frames that this piece completes."""
        *blocks, self._rest = (self._rest + piece).split(b"\n\n")
        return [self._frame(block) for block in blocks]

    def _frame(self, block: bytes) -> Frame:
        name, data, position = "", b"", None
        for line in block.split(b"\n"):
            field, _, value = line.partition(b": ")
            if field == b"data":
                data = value
            elif field == b"id":
                position = int(value)
            elif field == b"event":
                name = value.decode()
            elif field == b"retry":
                self.retry_seconds = int(value) / 1000
        return Frame(name, data, position)
