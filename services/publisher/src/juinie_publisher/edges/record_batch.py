"""A batch of records that are bytes already, in place of aiokafka's `BatchBuilder`, which makes each of its parts.

Record batch v2 (Kafka protocol guide, "Message format"), uncompressed, all records of one time: the topic's time is the
broker's.
"""

import struct
import time
from collections.abc import Iterable
from typing import Any

from aiokafka.record import util

from juinie_shared.contracts.record_bytes import VARINTS, VARINTS_KNOWN, varint

_calc_crc32c: Any = util.calc_crc32c

_HEADER = struct.Struct(">qiibIhiqqqhii")
_BEFORE_LEADER_EPOCH = struct.calcsize(">qi")
_CRC_AT = struct.calcsize(">qiib")
_CRC = struct.Struct(">I")
_CRC_FROM = _CRC_AT + _CRC.size
_MAGIC = 2
_NO_LEADER_EPOCH = -1
_PLAIN = 0
"""The attributes: neither compressed nor part of a transaction."""


def _place(count: int) -> bytes:
    """What stands before the key of the record behind so many: no attributes, as late as the first, its place."""
    return b"\0\0" + varint(count)


_PLACES = tuple(_place(count) for count in range(VARINTS_KNOWN))


class RecordBatch:
    """What aiokafka's sender asks of a batch. It is sent again as it is, with the numbers that it was first given."""

    def __init__(self, most_bytes: int) -> None:
        """`most_bytes`: of the whole batch. Its first record may be larger."""
        self._most_bytes = most_bytes
        self._parts: list[bytes] = [bytes(_HEADER.size)]
        self._size = _HEADER.size
        self._count = 0
        self._producer = (-1, -1, 0)
        self._built: bytearray | None = None

    def fill(self, records: Iterable[bytes]) -> None:
        """Add these records, packed from their key on, as long as they fit. Where the iterator raises, what came before is in."""
        parts, size, count = self._parts, self._size, self._count
        try:
            for record in records:
                place = _PLACES[count] if count < VARINTS_KNOWN else _place(count)
                behind = len(place) + len(record)
                length = VARINTS[behind] if behind < VARINTS_KNOWN else varint(behind)
                larger = size + len(length) + behind
                if count and larger > self._most_bytes:
                    return
                parts += (length, place, record)
                size = larger
                count += 1
        finally:
            self._size, self._count = size, count

    def size(self) -> int:
        """In bytes, of the whole."""
        return self._size

    def record_count(self) -> int:
        return self._count

    def close(self) -> None:
        """Nothing is added by anyone else."""

    def closed(self) -> bool:
        return True

    def _set_producer_state(self, producer_id: int, producer_epoch: int, base_sequence: int) -> None:
        self._producer = (producer_id, producer_epoch, base_sequence)

    def _build(self) -> bytearray:
        if self._built is None:
            self._built = self._bytes()
            self._parts.clear()
        return self._built

    def _bytes(self) -> bytearray:
        batch, now = bytearray().join(self._parts), int(time.time() * 1000)
        _HEADER.pack_into(
            batch, 0, 0, self._size - _BEFORE_LEADER_EPOCH, _NO_LEADER_EPOCH, _MAGIC, 0, _PLAIN,
            self._count - 1, now, now, *self._producer, self._count,
        )  # fmt: skip
        _CRC.pack_into(batch, _CRC_AT, _calc_crc32c(memoryview(batch)[_CRC_FROM:]))
        return batch
