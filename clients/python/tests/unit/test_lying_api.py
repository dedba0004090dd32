"""Writers and workers tell the checker what an API did that keeps no promise."""

import json
import random
from collections.abc import Callable
from typing import Any

import httpx
import pytest

from juinie.claims import Claim
from juinie.client import Client
from juinie.torture import deletions
from juinie.torture.findings import Kind
from juinie.torture.jobs import Job
from juinie.torture.leases import STARTED, Turn
from juinie.torture.leave import leave_of
from juinie.torture.scene import Deleted, Load, Scene
from juinie.torture.summary import SORTS
from juinie.torture.watching import some_watchers
from juinie.torture.worker import work_on
from juinie.torture.writer import Program, read_back, read_some_again

RUN = "0193a1b2-0000-7000-8000-000000000001"
LEASE_LOST = {"code": "lease_lost", "detail": "Another worker has the run."}

type Answer = Callable[[httpx.Request], httpx.Response]


def scene(answer: Answer, seed: int = 1, retry_seconds: float = 60, **load: Any) -> Scene:
    """One whose API answers so."""
    transport, url = httpx.MockTransport(answer), "http://juinie.test"
    client = Client(url, url, "jn_x", retry_seconds=retry_seconds, transport=transport)
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


@pytest.mark.parametrize(
    ("status", "code", "lost", "wrong"),
    [
        (404, "run_not_found", True, []),
        (410, "events_gone", True, []),
        (403, "forbidden", False, ["read again: 403 forbidden"]),
        (404, "unknown", False, ["read again: 404 unknown"]),
        (503, "database_unavailable", False, ["read again: No answer in time, the last try ended with: status 503"]),
    ],
)  # fmt: skip
async def test_concluded_run_that_is_refused_when_it_is_read_again_is_found(
    status: int, code: str, lost: bool, wrong: list[str]
) -> None:
    there = scene(lambda _: httpx.Response(status, json={"code": code}), retry_seconds=0)
    see_all(there, [])
    there.checker.findings.add(Kind.CORRUPT, RUN, "w", 1, "found before")
    await read_some_again(there)

    assert set(there.checker.findings.counts) == {Kind.CORRUPT, *([Kind.LOST] if lost else [])}
    assert [*there.figures.wrong_answers] == wrong


@pytest.mark.parametrize(
    ("status", "wrong"),
    [
        (404, []),
        (403, ["looked for again: 403 run_not_there"]),
        (503, ["looked for again: No answer in time, the last try ended with: status 503"]),
    ],
)
async def test_deleted_run_that_cannot_be_looked_for_again_is_told(status: int, wrong: list[str]) -> None:
    code = "run_not_found" if status == 404 else "run_not_there"
    there = scene(lambda _: httpx.Response(status, json={"code": code}), retry_seconds=0)
    there.deleted.append(Deleted(RUN, 0.0, {}))
    await deletions.look_for_some_again(there)

    assert not there.checker.findings.counts
    assert [*there.figures.wrong_answers] == wrong


NOT_FOUND = {"code": "run_not_found"}
EVENTS = [
    '{"seq":1,"type":"run.created","time":"t","data":1}',
    '{"seq":2,"type":"run.finished","time":"t","data":{"status":"success"}}',
]
PAGE = f'{{"events":[{",".join(EVENTS)}],"next_after_seq":2,"up_to_date":true}}'
HIDDEN, THERE = "hidden", "there"


async def deleted(monkeypatch: pytest.MonkeyPatch, delete: list[int], reads: str, again: str) -> Scene:
    """A run is deleted, looked for, read back and concluded, and once more looked for. `delete`: the statuses that DELETEs get, the last one ever after."""
    monkeypatch.setattr(deletions, "_GIVE_UP", 0.0)
    state = reads

    def answer(request: httpx.Request) -> httpx.Response:
        if request.method == "DELETE":
            status = delete.pop(0) if len(delete) > 1 else delete[0]
            return httpx.Response(status, json=NOT_FOUND if status == 404 else None)
        if state == HIDDEN:
            return httpx.Response(404, json=NOT_FOUND)
        if request.url.path.endswith("/events"):
            return httpx.Response(200, content=PAGE)
        return httpx.Response(
            200, json={"run_id": RUN, "status": "success", "last_seq": 2, "created_at": "t"}
        )

    there = scene(answer, patience_seconds=2)
    there.checker.finish(RUN, 2, there.now())
    await deletions.delete(there, RUN)
    await deletions.look_for(there, RUN)
    await read_back(there, RUN)
    there.conclude(RUN, 0.0)
    state = again
    await deletions.look_for_some_again(there)
    return there


@pytest.mark.parametrize(
    ("delete", "reads"),
    [([204], HIDDEN), ([503, 204], HIDDEN), ([503, 404], HIDDEN), ([503], HIDDEN), ([503], THERE)],
    ids=[
        "at once",
        "at the second try",
        "by a try without an answer",
        "without an answer",
        "never, and no answer",
    ],
)
async def test_run_that_is_deleted_is_gone_or_nobody_knows(
    monkeypatch: pytest.MonkeyPatch, delete: list[int], reads: str
) -> None:
    answered = delete[-1] != 503
    there = await deleted(monkeypatch, delete, reads, reads)

    assert there.checker.findings.kept == []
    assert not there.figures.wrong_answers
    assert (there.figures.deleted, there.figures.deletes_unanswered) == (answered, not answered)
    assert not there.concluded  # it may still be deleted
    assert len(there.deleted) == (reads == HIDDEN)


async def test_deleted_run_that_is_still_served_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    there = await deleted(monkeypatch, [204], THERE, HIDDEN)

    assert {violation.who for violation in there.checker.findings.kept} == {
        "GET ", "GET /events", "GET /wait", "pages",
    }  # fmt: skip
    assert set(there.checker.findings.counts) == {Kind.DELETED}


async def test_deleted_run_that_comes_back_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    there = await deleted(monkeypatch, [204], HIDDEN, THERE)

    assert [(found.kind, found.who) for found in there.checker.findings.kept] == [
        (Kind.DELETED, "read again")
    ]


async def test_run_that_is_gone_before_anybody_deletes_it_is_a_wrong_answer(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    there = await deleted(monkeypatch, [404], HIDDEN, HIDDEN)

    assert there.figures.wrong_answers == {"delete: 404 run_not_found": 1}


async def test_no_deletion_is_abandoned_before_one_was_answered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(deletions, "_GIVE_UP", 1.0)

    def answer(request: httpx.Request) -> httpx.Response:
        if request.extensions["timeout"]["read"] < 1:
            raise httpx.ReadTimeout("abandoned")
        return httpx.Response(204)

    there = scene(answer)
    for _ in range(3):
        await deletions.delete(there, RUN)

    assert (there.figures.deleted, there.figures.deletes_unanswered) == (1, 2)


@pytest.mark.parametrize(
    ("tokens", "delete", "left_out"),
    [(201, 409, []), (403, 409, ["stream tokens"]), (201, 405, ["deletions"]), (404, 403, ["stream tokens", "deletions"])],
    ids=["all", "no tokens", "no deletions", "neither"],
)  # fmt: skip
async def test_what_the_key_may_not_is_left_out_and_told(
    tokens: int, delete: int, left_out: list[str]
) -> None:
    def answer(request: httpx.Request) -> httpx.Response:
        if request.method == "DELETE":
            return httpx.Response(delete, json={"code": "run_not_finished" if delete == 409 else "forbidden"})
        return httpx.Response(tokens, json={"token": "t", "code": "forbidden", "detail": "Not yours."})

    there = scene(answer)
    there.leave = leave = await leave_of(there.client, RUN)
    sorts = {watcher.sort for _ in SORTS for watcher in some_watchers(there, RUN)}

    assert (leave.tokens, leave.deletes) == (tokens == 201, delete == 409)
    assert sorts == {*SORTS} - ({"token"} if tokens != 201 else set())
    assert [line.split(", because")[0] for line in leave.left_out] == [
        f"left out: {what}" for what in left_out
    ]


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
