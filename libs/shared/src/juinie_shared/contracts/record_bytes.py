"""Records as Kafka's record batch v2 has them (Kafka protocol guide, "Message format"), from the key on.

What stands before the key, its length and its place in the batch, is the batch's.
"""

from collections.abc import Sequence

_NULL = b"\x01"
"""A length of -1."""


def _varint(number: int) -> bytes:
    number <<= 1  # zigzag: the lowest bit is the sign
    digits = bytearray()
    while number > 0x7F:
        digits.append(0x80 | number & 0x7F)
        number >>= 7
    digits.append(number)
    return bytes(digits)


VARINTS = tuple(_varint(number) for number in range(4096))
"""The small numbers as signed varints, for those who know that theirs are."""
VARINTS_KNOWN = len(VARINTS)


def varint(number: int) -> bytes:
    """A number as a signed varint. Not for those below 0."""
    return VARINTS[number] if number < VARINTS_KNOWN else _varint(number)


def sized(text: bytes) -> bytes:
    """A text behind its length."""
    return varint(len(text)) + text


def packed(key: bytes, value: bytes | None, headers: Sequence[tuple[str, bytes]]) -> bytes:
    """Any record. `value`: None where there is none."""
    return b"".join(
        (
            sized(key),
            _NULL if value is None else sized(value),
            varint(len(headers)),
            *(sized(name.encode()) + sized(text) for name, text in headers),
        )
    )
