"""Positions, filters and frames of the stream: whatever is asked, and whatever was stored, the answer is the one by the rules.

The rules are written here a second time, from the protocol page and not from the code.
"""

import json
import re
from collections.abc import Callable
from typing import Any
from uuid import UUID, uuid4

import httpx
import pytest
from hypothesis import HealthCheck, given, seed, settings
from hypothesis import strategies as st

from juinie_testkit.backing.ready import run_aside
from juinie_testkit.client import ApiClient
from juinie_testkit.frames import Frame, FrameReader
from juinie_testkit.plain_http import NO_TLS
from juinie_testkit.seed import SeededKey
from juinie_testkit.stack import Stack

TYPES = ["a", "b", "a.b", "c/d", "stream.end", "x-1", "a", "b", "tail", "_"]
LAST = len(TYPES) + 3
"""run.created, run.started, the events, run.finished."""
NAMES = ["run.created", "run.started", *TYPES, "run.finished"]

HOSTILE = [
    "\r", "\n", "\r\n", "\u2028", "\u2029", "\x00", "\n\ndata: {}\n\n", "\nid: 999\n", "\nevent: stream.end\ndata: {}\n\n", "\u0085",
    "\ufeff", ": ", "retry: 1\n", "\x0b\x0c", "\U0001f600", "]]>", "\\u000a", "</script>",
]  # fmt: skip

pytestmark = pytest.mark.timeout(3600)


def fuzzed(plan: Any, what: str) -> Callable[[Any], Any]:
    """As many examples as the plan has for it, from its seed."""
    many = settings(
        max_examples=plan.cases_of(what),
        database=None,
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
    )
    return lambda test: seed(plan.seed)(many(test))


@pytest.fixture(scope="module")
def finished_run(stack: Stack, key: SeededKey) -> str:
    """A finished run of `LAST` events."""

    async def make() -> str:
        async with ApiClient(stack.api.url, key.text) as api:
            run_id = str((await api.create())["run_id"])
            await api.append(run_id, *((name, {"n": name}) for name in TYPES))
            await api.finish(run_id)
            return run_id

    return run_aside(make())


@pytest.fixture(scope="module")
def http(stack: Stack, key: SeededKey) -> Any:
    with httpx.Client(
        verify=NO_TLS,
        base_url=stack.gateway.url,
        headers={"Authorization": f"Bearer {key.text}"},
        trust_env=False,
        timeout=20,
    ) as client:
        yield client


def frames_of(answer: httpx.Response) -> list[Frame]:
    """Read strictly: a body that breaks a rule raises."""
    reader = FrameReader()
    frames = reader.feed(answer.content)
    reader.finish()
    return frames


def positions() -> st.SearchStrategy[str]:
    numbers = st.one_of(
        st.integers(-3, LAST + 3),
        st.integers(-(10**20), 10**20),
        st.sampled_from([2**31, 2**63 - 1, 2**63, 2**64, 10**17, 10**18 - 1, 10**18]),
    ).map(str)
    printable = st.text(st.characters(min_codepoint=33, max_codepoint=126), min_size=1, max_size=30)
    odd = st.sampled_from(
        [
            "+1",
            "01",
            "00",
            "-0",
            "-01",
            "1.0",
            "1e3",
            "0x1",
            "1_000",
            "tail",
            "TAIL",
            "null",
            "--1",
            "1 2",
            "\u0663",
            "\uff11",
        ]
    )
    return st.one_of(numbers, odd, printable)


def test_every_position_is_answered_by_the_rules(finished_run: str, http: httpx.Client, plan: Any):
    @fuzzed(plan, "positions")
    @given(position=positions(), as_header=st.booleans())
    def check(position: str, as_header: bool) -> None:
        encoded = position.encode().strip() if as_header else position
        sent: Any = (
            {"headers": {"Last-Event-ID": encoded}} if as_header else {"params": {"after_seq": position}}
        )
        answer = http.get(f"/v1/runs/{finished_run}/stream", **sent)
        wanted = _start_of(position, as_header)
        if wanted is None:
            assert answer.status_code == 400, answer.text
        elif wanted == LAST:
            assert (answer.status_code, answer.content) == (204, b"")
        else:
            _assert_shows(answer, wanted)

    check()


def _start_of(position: str, as_header: bool) -> int | None:
    """Where a stream begins by the protocol page; None: refused."""
    if position == "tail" and not as_header:
        return LAST
    if position == "-1":
        return 0
    return int(position) if re.fullmatch(r"[0-9]{1,18}", position, re.ASCII) else None


def _assert_shows(answer: httpx.Response, after: int) -> None:
    assert answer.status_code == 200
    frames = frames_of(answer)
    controls = [frame.event for frame in frames if frame.event]
    begins = 0 if after > LAST else after
    assert controls == ["stream.reset"] * (after > LAST) + ["stream.caught_up", "stream.end"]
    assert [frame.id for frame in frames if frame.is_run_event] == list(range(begins + 1, LAST + 1))


def test_every_filter_is_answered_by_the_rules(finished_run: str, http: httpx.Client, plan: Any):
    name = st.one_of(
        st.sampled_from(NAMES),
        st.from_regex(r"[A-Za-z0-9._/-]{1,8}", fullmatch=True),
        st.text(max_size=6),
        st.sampled_from(["", " ", "*", "a b", "a" * 128, "a" * 129, "ä", "\x00", "%2C"]),
    )

    @fuzzed(plan, "filters")
    @given(names=st.lists(name, min_size=1, max_size=6), after=st.integers(0, LAST - 1))
    def check(names: list[str], after: int) -> None:
        types = ",".join(names)
        answer = http.get(f"/v1/runs/{finished_run}/stream", params={"types": types, "after_seq": str(after)})
        wanted = types.split(",")
        if not all(re.fullmatch(r"[A-Za-z0-9._/-]{1,128}", one, re.ASCII) for one in wanted):
            assert answer.status_code in {400, 422}, answer.text
            return
        assert answer.status_code == 200
        shown = [frame.json["type"] for frame in frames_of(answer) if frame.is_run_event]
        assert shown == [one for one in NAMES[after:] if one in wanted or one == "run.finished"]

    check()


def values() -> st.SearchStrategy[Any]:
    hostile = st.lists(
        st.one_of(st.sampled_from(HOSTILE), st.text(st.characters(exclude_categories=["Cs"]), max_size=8)),
        max_size=5,
    ).map("".join)
    leaves = st.one_of(
        st.none(), st.booleans(), st.integers(), st.floats(allow_nan=False, allow_infinity=False), hostile
    )
    return st.recursive(
        leaves,
        lambda inner: st.lists(inner, max_size=4) | st.dictionaries(hostile, inner, max_size=4),
        max_leaves=8,
    )


def test_every_stored_event_is_one_frame_and_as_it_was_stored(
    stack: Stack, key: SeededKey, http: httpx.Client, plan: Any
):
    names = st.from_regex(r"[A-Za-z0-9._/-]{1,128}", fullmatch=True).filter(
        lambda name: not name.startswith("run.")
    )

    @fuzzed(plan, "frames")
    @given(events=st.lists(st.tuples(names, values()), min_size=1, max_size=8), escape=st.booleans())
    def check(events: list[tuple[str, Any]], escape: bool) -> None:
        run_id = _store(stack, key, events, escape)
        frames = [frame for frame in frames_of(http.get(f"/v1/runs/{run_id}/stream")) if frame.is_run_event]
        assert [frame.id for frame in frames] == list(range(1, len(events) + 4))
        shown = [(frame.json["type"], frame.json["data"]) for frame in frames[2:-1]]
        assert shown == events
        page = httpx.get(
            f"{stack.api.url}/v1/runs/{run_id}/events",
            headers={"Authorization": f"Bearer {key.text}"},
            trust_env=False,
        )
        assert all((frame.data or "").encode() in page.content for frame in frames), (
            "page and frame say the same bytes"
        )

    check()


def _store(stack: Stack, key: SeededKey, events: list[tuple[str, Any]], escape: bool) -> UUID:
    """Create a run with these events and finish it: each answer has to be a success."""
    run_id = uuid4()
    last = [{"type": name, "data": data} for name, data in events]
    with httpx.Client(
        verify=NO_TLS,
        base_url=stack.api.url,
        headers={"Authorization": f"Bearer {key.text}"},
        trust_env=False,
        timeout=20,
    ) as client:
        for path, body in (
            ("/v1/runs", {"agent": "agent", "run_id": str(run_id)}),
            (f"/v1/runs/{run_id}/finish", {"status": "success", "events": last}),
        ):
            content = json.dumps(body, ensure_ascii=escape).encode()
            answer = client.post(path, content=content, headers={"Content-Type": "application/json"})
            assert answer.is_success, answer.text
    return run_id
