"""Writers and workers tell the checker what an API did that keeps no promise."""

import json
import random
from collections.abc import Callable
from typing import Any

import httpx
import pytest

from juinie.claims import Claim
from juinie.client import Client
from juinie.torture.findings import Kind
from juinie.torture.jobs import Job
from juinie.torture.leases import STARTED, Turn
from juinie.torture.scene import Load, Scene
from juinie.torture.worker import work_on
from juinie.torture.writer import Program, read_some_again

RUN = "0193a1b2-0000-7000-8000-000000000001"
LEASE_LOST = {"code": "lease_lost", "detail": "Another worker has the run."}

type Answer = Callable[[httpx.Request], httpx.Response]


def scene(answer: Answer, seed: int = 1, **load: Any) -> Scene:
    """One whose API answers so."""
    transport = httpx.MockTransport(answer)
    client = Client("http://juinie.test", "http://juinie.test", "jn_x", transport=transport)
    return Scene(client, Load(rate=1e6, **load), random.Random(seed))


class Stored:
    """An API that stores what it is sent, from seq 2 on. `shown` is what it says of the run's last seq."""

    def __init__(self, shown: Callable[[int], int] = lambda last_seq: last_seq) -> None:
        self.contents: list[bytes] = []
        self._shown = shown

    def __call__(self, request: httpx.Request) -> httpx.Response:
        if request.method == "GET":
            return httpx.Response(200, json={"last_seq": self._shown(1 + len(self.contents))})
        return self.store(request)

    def store(self, request: httpx.Request) -> httpx.Response:
        first = 2 + len(self.contents)
        sent = request.content.removeprefix(b'{"events":[{"type":"').removesuffix(b"}]}")
        self.contents += [one.replace(b'","data":', b" ", 1) for one in sent.split(b'},{"type":"')]
        last = 1 + len(self.contents)
        return httpx.Response(201, json={"first_seq": first, "last_seq": last, "cancel_requested": False})


@pytest.mark.parametrize(
    ("shown", "kinds"),
    [(lambda last_seq: last_seq, set[Kind]()), (lambda last_seq: last_seq - 1, {Kind.STALE_READ})],
    ids=["true", "one too few"],
)
async def test_read_of_less_than_was_acknowledged_is_found(
    shown: Callable[[int], int], kinds: set[Kind]
) -> None:
    there = scene(Stored(shown), batch=5)
    await Program(there, RUN, "p", 400).write()

    assert there.figures.appends > 50
    assert set(there.checker.findings.counts) == kinds
    assert not there.figures.wrong_answers


async def test_append_that_is_refused_without_a_reason_is_a_wrong_answer() -> None:
    there = scene(lambda _: httpx.Response(409, json={"code": "run_finished"}), batch=5)
    await Program(there, RUN, "p", 5).write()
    await Program(there, RUN, "racer", 5, may_be_late=True).write()

    assert set(there.figures.wrong_answers) == {"append: 409 run_finished"}
    assert there.figures.wrong_answers.total() < there.figures.appends


async def test_append_without_an_answer_is_counted() -> None:
    there = scene(lambda _: httpx.Response(503), batch=5, patience_seconds=0)
    await Program(there, RUN, "p", 5).write()

    assert there.figures.unanswered + there.figures.given_up == there.figures.appends


@pytest.mark.parametrize("stored_after_all", [False, True], ids=["fenced", "not fenced"])
async def test_worker_that_lost_its_lease_may_write_nothing(stored_after_all: bool) -> None:
    """It is told so, tries once more, and that one is stored: by a lease that is lost."""
    stored, refused = Stored(), httpx.Response(409, json=LEASE_LOST)
    answers = iter([refused])

    def answer(request: httpx.Request) -> httpx.Response:
        return next(answers, None) or (stored.store(request) if stored_after_all else refused)

    there = scene(answer, seed=1)
    there.jobs[RUN] = Job(appends=3)
    await work_on(there, Claim(there.client, {"run_id": RUN}, "lease", 1), "ann")
    see_all(there, stored.contents)

    assert there.figures.claims == 1
    assert there.figures.leases_lost >= 1
    assert (Kind.FENCED in there.checker.findings.counts) is stored_after_all


async def test_concluded_run_that_is_gone_when_it_is_read_again_is_found() -> None:
    page: dict[str, Any] = {"events": [], "next_after_seq": 0, "up_to_date": True}
    there = scene(lambda _: httpx.Response(200, content=json.dumps(page, separators=(",", ":"))))
    see_all(there, [])
    assert not there.checker.findings.counts
    await read_some_again(there)

    assert set(there.checker.findings.counts) == {Kind.LOST}


def see_all(there: Scene, contents: list[bytes]) -> None:
    """One reader sees the run from its creation to its end; it is concluded."""
    checker, last = there.checker, 3 + len(contents)
    checker.open(RUN, "r", 0, at=0)
    checker.see(RUN, "r", 1, None, b"1", 0, first=True)
    checker.see(RUN, "r", 2, None, b"2", 0, turn=Turn(STARTED, 1, "ann"))
    for seq, one in enumerate(contents, 3):
        checker.see(RUN, "r", seq, one, one, 0)
    checker.see(RUN, "r", last, None, b"end", 0, last=True)
    checker.finish(RUN, last, at=0)
    checker.end(RUN, "r", last)
    there.conclude(RUN, 0.0)
