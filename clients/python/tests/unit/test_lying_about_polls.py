"""A poll sees through an API that says, at the end of a wait, what was so before it."""

import asyncio
import random
from collections.abc import Callable
from typing import Any

import httpx
import pytest

from juinie.client import Client
from juinie.errors import NotFound
from juinie.torture import polls, run_history
from juinie.torture.findings import Kind
from juinie.torture.polls import EndPoll, EventsPoll
from juinie.torture.scene import Load, Scene
from juinie.torture.schedule import Fault, nothing

RUN = "0193a1b2-0000-7000-8000-000000000001"
SECONDS = 0.4
URL = "http://juinie.test"

type Said = tuple[int, dict[str, Any]]


class Longest(random.Random):
    def uniform(self, _least: float, most: float) -> float:
        return most


class Deployment:
    """Polls of its run are told what is `said`, the last one at once. The run has two events, and while the first poll waits something
    `happens` to it: is acknowledged as if before that poll, or, with `late`, just before its answer.
    """

    def __init__(self, *said: Said, waits: bool = True) -> None:
        self.said, self.waits = list(said), waits
        self.scene = Scene(
            Client(URL, URL, "jn_x", transport=httpx.MockTransport(self._answer)), Load(), Longest()
        )
        self.before = 0.0
        self.happens: Callable[[float], None] = lambda _: None
        self.late = False
        self.checker = self.scene.checker

    async def polled(self, sort: type[EndPoll]) -> set[Kind]:
        self.checker.send(RUN, "a", [b"1"])
        self.before = self.scene.now()
        self.checker.acknowledge(RUN, "a", 2, 2, self.before)
        async with asyncio.timeout(20):
            await sort(self.scene, RUN).watch()
        assert not self.said
        return set(self.checker.findings.counts)

    async def _answer(self, request: httpx.Request) -> httpx.Response:
        if not self.late:
            self.happens(self.before)
        if self.waits and len(self.said) > 1:
            asked = request.url.params
            await asyncio.sleep(float(asked.get("timeout_seconds") or asked["wait_seconds"]) + 0.01)
        if self.late:
            self.happens(self.scene.now())
        self.happens = lambda _: None
        status, found = self.said.pop(0)
        return httpx.Response(status, json=found)


def run(last_seq: int, status: str = "running") -> Said:
    found = {"run_id": RUN, "status": status, "last_seq": last_seq, "created_at": "t"}
    return (202 if status == "running" else 200), found


def page(last_seq: int, *, finished: bool = False) -> Said:
    found = {"events": [], "next_after_seq": last_seq, "up_to_date": True, "last_seq": last_seq}
    return 200, {**found, "finished": finished}


@pytest.fixture(autouse=True)
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(polls, "_LONGEST_SECONDS", SECONDS)
    monkeypatch.setattr(polls, "_LONGEST_PAUSE_SECONDS", 0.0)
    monkeypatch.setattr(run_history, "_AS_OF_SECONDS", 0.1)


END = (EndPoll, [run(2), run(3, "success")])
EVENTS = (EventsPoll, [page(2), page(3, finished=True)])


@pytest.mark.parametrize(("sort", "said"), [END, EVENTS], ids=["end", "events"])
@pytest.mark.parametrize("late", [False, True], ids=["long before", "just now"])
async def test_end_that_was_acknowledged_before_the_wait_was_over_is_told(
    sort: type[EndPoll], said: list[Said], late: bool
) -> None:
    there = Deployment(*said)
    there.late = late
    there.happens = lambda at: there.checker.finish(RUN, 3, at)

    assert (Kind.STALE_READ in await there.polled(sort)) is not late
    assert (there.scene.figures.polls, there.scene.figures.polls_in_vain) == (2, 1)


@pytest.mark.parametrize("late", [False, True], ids=["long before", "just now"])
async def test_event_that_was_acknowledged_before_the_wait_was_over_is_told(late: bool) -> None:
    there = Deployment(page(2), page(4, finished=True))
    there.late = late

    def append(at: float) -> None:
        there.checker.send(RUN, "b", [b"2"])
        there.checker.acknowledge(RUN, "b", 3, 3, at)

    there.happens = append

    assert await there.polled(EventsPoll) == (set() if late else {Kind.STALE_READ})


async def test_server_that_stops_answers_sooner_and_owes_no_more_than_before(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(polls, "_LONGEST_SECONDS", 60.0)
    there = Deployment(*END[1], waits=False)
    there.happens = lambda at: there.checker.finish(RUN, 3, at)

    assert await there.polled(EndPoll) == set()
    assert there.scene.figures.polls_in_vain == 0


async def test_answer_that_something_held_up_is_as_old_as_that() -> None:
    there = Deployment(*END[1])
    there.happens = lambda at: there.checker.finish(RUN, 3, at)
    await there.scene.answers.excused_by(Fault("hang", "network", nothing, holds_answers=True)).inject()

    assert await there.polled(EndPoll) == set()


@pytest.mark.parametrize(
    ("sort", "said"),
    [(EndPoll, [run(1), run(3, "success")]), (EventsPoll, [page(1), page(3, finished=True)])],
    ids=["end", "events"],
)
async def test_less_than_was_acknowledged_before_the_poll_began_is_found(
    sort: type[EndPoll], said: list[Said]
) -> None:
    assert Kind.STALE_READ in await Deployment(*said).polled(sort)


async def test_another_end_than_was_told_is_found() -> None:
    there = Deployment(run(3, "error"))
    there.checker.end_as(RUN, "finish", "success")

    assert await there.polled(EndPoll) == {Kind.WRONG_STATUS}


@pytest.mark.parametrize("sort", [EndPoll, EventsPoll])
async def test_run_that_was_deleted_has_no_more_polls(sort: type[EndPoll]) -> None:
    there = Deployment((404, {"code": "run_not_found"}))
    there.checker.delete(RUN)

    assert await there.polled(sort) == set()
    assert there.checker.is_gone(RUN)


async def test_run_that_is_gone_and_was_never_deleted_is_in_the_way() -> None:
    with pytest.raises(NotFound):
        await Deployment((404, {"code": "run_not_found"})).polled(EndPoll)


async def test_poll_without_an_answer_is_asked_again() -> None:
    assert await Deployment((503, {}), run(3, "success")).polled(EndPoll) == set()
