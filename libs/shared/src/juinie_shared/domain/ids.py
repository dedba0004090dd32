"""Who is meant: run ids, tenants, keys, and the outbox shard that a run belongs to for ever."""

import os
import re
import time
import zlib
from typing import NewType
from uuid import UUID

RunId = NewType("RunId", UUID)
TenantId = NewType("TenantId", UUID)
KeyId = NewType("KeyId", UUID)
Seq = NewType("Seq", int)

SHARDS = 64
"""Outbox shards. Fixed for ever: a run's rows must stay in one shard, or two publishers could reorder them."""

_CANONICAL = re.compile(r"[0-9a-fA-F]{8}(?:-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}")


def new_uuid7() -> UUID:
    """A time-ordered id with 74 random bits (RFC 9562 §5.7): the clock's milliseconds first, then randomness."""
    value = (time.time_ns() // 1_000_000) << 80 | int.from_bytes(os.urandom(10))
    value = value & ~(0xF << 76) | 0x7 << 76
    value = value & ~(0x3 << 62) | 0x2 << 62
    return UUID(int=value)


def new_run_id() -> RunId:
    return RunId(new_uuid7())


def parse_run_id(text: str) -> RunId | None:
    """The run id that `text` spells in the canonical 36 characters, or None. Braces and `urn:` are no run ids."""
    return RunId(UUID(text)) if _CANONICAL.fullmatch(text) else None


def shard_of(run_id: RunId) -> int:
    """The run's outbox shard, 0..63. Stored with the run, so no other place computes it."""
    return zlib.crc32(run_id.bytes) % SHARDS
