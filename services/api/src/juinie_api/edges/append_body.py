"""The body of an append, read quickly: with one pass over it where it is as it should be.

What is anything but plainly right is left to `parse_body`, which finds and names all that is wrong with it. So a body is
taken here only if it would be taken there, and then for the same (a test holds the two against each other).
"""

from dataclasses import dataclass
from functools import lru_cache

import msgspec
from msgspec import UNSET, Raw, UnsetType

from juinie_api.edges import json_text
from juinie_api.edges.body import parse_json, read_json
from juinie_api.edges.limits import Limits
from juinie_api.edges.schemas import AppendBody, EventBody
from juinie_shared.domain.events import LONGEST_TYPE, RESERVED_PREFIX, NewEvent, is_event_type
from juinie_shared.domain.times import parse_time


@dataclass(frozen=True, slots=True)
class AppendRequest:
    """What a body asks for, and its canonical bytes."""

    events: list[NewEvent]
    start: bool
    canonical: bytes


class _Event(msgspec.Struct, forbid_unknown_fields=True):
    type: str
    data: Raw | UnsetType = UNSET
    time: str | UnsetType = UNSET


class _Body(msgspec.Struct, forbid_unknown_fields=True):
    events: list[_Event]
    start: bool | UnsetType = UNSET


_decoder = msgspec.json.Decoder(_Body)


def read_append(body: bytes, limits: Limits) -> AppendRequest:
    """
    Raises:
        Refused: as `parse_body`.
    """
    compact, lone_surrogates = read_json(body, limits)
    quick = None if lone_surrogates else quickly(compact, limits)
    return quick or thoroughly(compact, limits, lone_surrogates=lone_surrogates)


def thoroughly(compact: bytes, limits: Limits, *, lone_surrogates: bool = False) -> AppendRequest:
    """Of JSON without white space.

    Raises:
        Refused: with all its faults.
    """
    parsed = parse_json(AppendBody, compact, limits, lone_surrogates=lone_surrogates)
    return AppendRequest(new_events(parsed.events), parsed.start, compact)


def new_events(events: list[EventBody]) -> list[NewEvent]:
    """As the core takes them."""
    return [NewEvent(event.type, event.data, event.time) for event in events]


def quickly(compact: bytes, limits: Limits) -> AppendRequest | None:
    """Of JSON without white space. None: something in it is not plainly right."""
    try:
        found = _decoder.decode(compact)
    except (msgspec.ValidationError, RecursionError):
        return None
    # As long as what was found in it: so no name stands there twice, or is spelled in another way.
    if len(msgspec.json.encode(found)) != len(compact):
        return None
    if not 0 < len(found.events) <= limits.events:
        return None
    # No piece is larger, or nested deeper, than all of it.
    fits = len(compact) <= limits.event_bytes and compact.count(b"[") + compact.count(b"{") <= limits.depth
    events: list[NewEvent] = []
    for event in found.events:
        if len(event.type) > LONGEST_TYPE or not _is_for_clients(event.type):
            return None
        if not (fits or _fits(event, limits)):
            return None
        time = None if event.time is UNSET else parse_time(event.time)
        if time is None and event.time is not UNSET:
            return None
        data = "null" if event.data is UNSET else str(event.data, "utf-8")
        events.append(NewEvent(event.type, data, time))
    return AppendRequest(events, found.start is not False, compact)


def _fits(event: _Event, limits: Limits) -> bool:
    data = b"" if event.data is UNSET else bytes(event.data)
    return len(data) <= limits.event_bytes and json_text.depth(data) <= limits.depth


@lru_cache(maxsize=1000)
def _is_for_clients(text: str) -> bool:
    """Few types come again and again. Asked only of those that are not too long: they are kept."""
    return is_event_type(text) and not text.startswith(RESERVED_PREFIX)
