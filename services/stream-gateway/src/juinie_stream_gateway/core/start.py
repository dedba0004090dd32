"""Where a stream begins: the position that the client sent, held against the run's row."""

from typing import Literal

import msgspec

from juinie_shared.domain.ids import Seq
from juinie_shared.domain.positions import START, TAIL
from juinie_stream_gateway.store import RunRow


class Start(msgspec.Struct, frozen=True):
    """`stored_until` is what the run held when the stream began. `reset`: the client was ahead of that."""

    position: Seq
    stored_until: Seq
    reset: bool = False
    tail: bool = False


def start_of(asked: Seq | Literal["tail"], row: RunRow) -> Start | None:
    """Where to begin; None when there is nothing to stream and never will be (204)."""
    position = row.last_seq if asked == TAIL else asked
    if position == row.last_seq and row.finished:
        return None
    if position > row.last_seq:
        return Start(START, row.last_seq, reset=True)
    return Start(position, row.last_seq, tail=asked == TAIL)
