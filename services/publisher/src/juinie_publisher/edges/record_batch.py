"""A batch of records that are bytes already, in place of aiokafka's `BatchBuilder`, which makes each of its parts.

Record batch v2 (Kafka protocol guide, "Message format"), uncompressed, all records of one time: the topic's time is the
broker's.
"""

import struct
import time
from typing import Any

from aiokafka.record import util

from juinie_shared.contracts.record_bytes import VARINTS, varint

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


_PLACES = tuple(_place(count) for count in range(len(VARINTS)))


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

    def add(self, record: bytes) -> bool:
        """Whether this record, packed from its key on, fit."""
        place = _PLACES[self._count] if self._count < len(_PLACES) else _place(self._count)
        behind = len(place) + len(record)
        length = varint(behind)
        size = self._size + len(length) + behind
        if self._count and size > self._most_bytes:
            return False
        self._parts += (length, place, record)
        self._size = size
        self._count += 1
        return True

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
