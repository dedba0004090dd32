"""Read quickly, a body of an append is what it is read thoroughly, or it is left to be."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from juinie_api.edges.append_body import AppendRequest, quickly, read_append, thoroughly
from juinie_api.edges.body import read_json
from juinie_api.edges.limits import Limits
from juinie_api.edges.problems import Refused

LIMITS = Limits(event_bytes=60, events=3, depth=4)

values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=6,
)
types = st.sampled_from(["x", "run.x", "", "a b", "é", "tool_call/start", "x" * 129, 1, None])
times = st.sampled_from(["2026-01-01T00:00:00Z", "2026-01-01", "2026-01-01T00:00:00+25:00", 7, None])
events = st.fixed_dictionaries({"type": types}, optional={"data": values, "time": times, "q": values})
bodies = st.fixed_dictionaries(
    {"events": st.lists(events, max_size=4) | values},
    optional={"start": st.booleans() | values, "q": values},
)


def held_against(body: bytes) -> AppendRequest | None:
    """Read quickly, it is what it is read thoroughly; and `read_append` gives that, or refuses it."""
    try:
        compact, lone_surrogates = read_json(body, LIMITS)
        thorough = thoroughly(compact, LIMITS, lone_surrogates=lone_surrogates)
    except Refused:
        with pytest.raises(Refused):
            read_append(body, LIMITS)
        return None
    assert read_append(body, LIMITS) == thorough
    quick = quickly(compact, LIMITS)
    assert quick in (None, thorough)
    return quick


@given(bodies)
def test_whole_bodies(body: Any) -> None:
    held_against(json.dumps(body).encode())
    held_against(json.dumps(body, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "surrogatepass"))


@given(bodies, st.data())
def test_bodies_with_a_piece_missing_or_twice(body: Any, data: st.DataObject) -> None:
    text = json.dumps(body)
    start = data.draw(st.integers(0, len(text)))
    end = data.draw(st.integers(start, min(len(text), start + 20)))
    held_against((text[:start] + text[end:]).encode())
    held_against((text[:end] + text[start:end] + text[end:]).encode())


@pytest.mark.parametrize(
    "body",
    [
        b'{"events":[{"type":"x"}]}',
        b' { "events" : [ { "data" : [1, 2.50, "\\u00e9"], "type" : "x" } ] } ',
        b'{"start":false,"events":[{"type":"x","data":{"a":1e400},"time":"2026-01-01T00:00:00+01:00"},{"type":"y"}]}',
    ],
)
def test_what_clients_send_is_read_quickly(body: bytes) -> None:
    assert held_against(body) is not None


@pytest.mark.parametrize(
    "body",
    [
        b'{"events":[{"type":"x","type":"x"}]}',
        b'{"events":[{"type":"y","data":1,"data":2}]}',
        b'{"events":[{"type":"x"}],"events":[{"type":"x"}]}',
        b'{"events":[{"type":"x"}],"q":1}',
        b'{"events":[{"type":"x","q":1}]}',
        b'{"events":[]}',
        b'{"events":[{"type":"x"},{"type":"x"},{"type":"x"},{"type":"x"}]}',
        b'{"events":[{"type":"run.x"}]}',
        b'{"events":[{"type":"x","data":[[[[[1]]]]]}]}',
        b'{"events":[{"type":"x","data":"' + b"x" * 60 + b'"}]}',
        b'{"events":[{"type":"x","time":"yesterday"}]}',
        b'{"events":[{"type":"x","data":"\\ud800"}]}',
        b'{"events":[{"type":"x","data":NaN}]}',
        b"[]",
        b"",
    ],
)
def test_what_is_wrong_is_not(body: bytes) -> None:
    with pytest.raises(Refused):
        read_append(body, LIMITS)
