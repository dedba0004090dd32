"""Kafka records as bytes, written by hand: what the publisher has to write and the gateway has to read.

A file has the key and the headers, one a line and in order, then an empty line, then the value.
"""

from dataclasses import dataclass
from pathlib import Path

_FOLDER = Path(__file__).parent


@dataclass(frozen=True, slots=True)
class GoldenRecord:
    """A record as it lies on the topic."""

    name: str
    key: bytes
    headers: tuple[tuple[str, bytes], ...]
    value: bytes


def golden_records() -> list[GoldenRecord]:
    """All of them, by name."""
    return [golden_record(path.stem) for path in sorted(_FOLDER.glob("*.record"))]


def golden_record(name: str) -> GoldenRecord:
    """The record in `golden/<name>.record`."""
    head, _, value = (_FOLDER / f"{name}.record").read_bytes().partition(b"\n\n")
    (_, key), *headers = [line.split(b": ", 1) for line in head.split(b"\n")]
    return GoldenRecord(
        name, key, tuple((header.decode(), text) for header, text in headers), value.removesuffix(b"\n")
    )
