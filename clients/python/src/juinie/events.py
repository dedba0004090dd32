"""A run event as it stands on the wire: the same bytes in a page, in the stream and on Kafka."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Self

RUN_FINISHED = "run.finished"

_TEXT_OF_NUMBERS = json.JSONDecoder(parse_int=str, parse_float=str)
"""Finds where a JSON value ends, whatever size its numbers have."""


def decoded(text: str | bytes) -> Any:
    """JSON, whatever size its numbers have (`sys.set_int_max_str_digits`).

    Raises:
        ValueError: it is none.
    """
    return json.loads(text, parse_int=_whole)


def _whole(text: str) -> int | float:
    try:
        return int(text)
    except ValueError:
        return float(text)


@dataclass(frozen=True, slots=True)
class RunEvent:
    """One event of a run. `raw` is its JSON as it came, `raw_data` the data's part of it."""

    seq: int
    type: str
    time: str
    raw_data: bytes
    raw: bytes

    @property
    def data(self) -> Any:
        """The data, decoded. A whole number that Python takes for too long is infinity; `raw_data` has it all."""
        return decoded(self.raw_data)

    @classmethod
    def read(cls, raw: bytes) -> Self:
        """An event from its JSON.

        Raises:
            ValueError: these bytes are no run event.
        """
        seq, found, rest = raw.removeprefix(b'{"seq":').partition(b',"type":"')
        name, found_time, rest = rest.partition(b'","time":"')
        time, found_data, data = rest.partition(b'","data":')
        if not (found and found_time and found_data and data.endswith(b"}")):
            raise ValueError("not a run event")
        return cls(int(seq), name.decode(), time.decode(), data[:-1], raw)


def events_of_page(page: bytes) -> Iterator[RunEvent]:
    """The events of a page of the API, each with its own bytes.

    Raises:
        ValueError: the page is not what the API answers.
    """
    text = page.decode()
    at = text.index("[", text.index('"events"')) + 1
    while text[at : at + 1] != "]":
        _, end = _TEXT_OF_NUMBERS.raw_decode(text, at)
        yield RunEvent.read(text[at:end].encode())
        at = end + (text[end : end + 1] == ",")
