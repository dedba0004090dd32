"""An answer that a client repeats without a word is found all the same, if it is one that may not be given."""

import asyncio
import time
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager

import httpx
import pytest

from juinie.torture import answers as judging
from juinie.torture.answers import Answers
from juinie.torture.schedule import Fault, nothing
from juinie.torture.stalls import Stalls

RUN = "0193a1b2-0000-7000-8000-000000000001"


@asynccontextmanager
async def api(answer: bytes, held_up: asyncio.Event) -> AsyncGenerator[str]:
    """Gives every request this answer, once the event is set."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        await held_up.wait()
        writer.write(b"HTTP/1.1 " + answer + b"\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
        writer.close()

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"


async def found(answer: bytes, path: str = f"/v1/runs/{RUN}/events") -> dict[str, int]:
    answers, at_once = Answers(), asyncio.Event()
    at_once.set()
    async with api(answer, at_once) as url, httpx.AsyncClient(transport=answers.transport()) as http:
        await http.post(f"{url}{path}")
    return dict(answers.wrong)


@pytest.mark.parametrize("answer", [b"200 OK", b"409 Conflict", b"503 Busy\r\nRetry-After: 1", b"502 Proxy"])
async def test_answers_that_may_be_given_are_not_found(answer: bytes) -> None:
    assert await found(answer) == {}


@pytest.mark.parametrize(("answer", "wrong"), [(b"500 Oh", "500"), (b"503 Busy", "503 without Retry-After")])
async def test_answer_that_may_not_be_given_is_wrong(answer: bytes, wrong: str) -> None:
    assert await found(answer) == {f"POST events: {wrong}": 1}
    assert await found(answer, f"/v1/runs/{RUN}") == {f"POST a run: {wrong}": 1}


@pytest.mark.parametrize(
    "read_timeout", [0.05, None], ids=["and the client gave up", "and the client waited"]
)
async def test_answer_that_comes_late_on_a_good_line_is_wrong(
    monkeypatch: pytest.MonkeyPatch, read_timeout: float | None
) -> None:
    monkeypatch.setattr(judging, "LATE_SECONDS", 0.01)

    assert await late_answer(Answers(), read_timeout) == {"POST events: no answer within 0.01 s": 1}


async def test_poll_is_late_by_what_it_takes_besides_its_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(judging, "LATE_SECONDS", 0.01)

    assert await late_answer(Answers(), None, query="?wait_seconds=60") == {}
    assert await late_answer(Answers(), None, query="?timeout_seconds=0.02")


async def test_answer_that_came_while_we_stood_still_is_not_late(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(judging, "LATE_SECONDS", 0.7)

    assert await late_answer(Answers(), None, stand_still) == {}


async def test_a_stall_takes_nothing_off_for_what_began_after_it() -> None:
    stalls = Stalls()
    with stalls.watched():
        await asyncio.sleep(0)
        stand_still()
        began = time.monotonic()
        await asyncio.sleep(0.01)
        assert stalls.seconds_since(began - 60) - stalls.seconds_since(began) > 0.5


@pytest.mark.parametrize("healed", [False, True], ids=["still there", "healed meanwhile"])
async def test_fault_that_holds_answers_up_excuses_what_began_while_it_lasted(
    monkeypatch: pytest.MonkeyPatch, healed: bool
) -> None:
    monkeypatch.setattr(judging, "LATE_SECONDS", 0.01)
    answers = Answers()
    fault = answers.excused_by(Fault("hang", "network", nothing, holds_answers=True))
    await fault.inject()

    assert await late_answer(answers, None, fault.heal if healed else nothing) == {}


async def test_fault_that_holds_nothing_up_excuses_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(judging, "LATE_SECONDS", 0.01)
    answers = Answers()
    await answers.excused_by(Fault("postgres killed", "postgres", nothing)).inject()

    assert await late_answer(answers, None)


def stand_still() -> None:
    """For a second, with everything that this process does."""
    time.sleep(1)


async def late_answer(
    answers: Answers,
    read_timeout: float | None,
    meanwhile: Callable[[], object] = nothing,
    query: str = "",
) -> dict[str, int]:
    """What is wrong with an answer that comes after more than a hundredth of a second, if at all."""
    held_up = asyncio.Event()
    async with api(b"200 OK", held_up) as url, httpx.AsyncClient(transport=answers.transport()) as http:
        asyncio.get_running_loop().call_later(0.1, held_up.set)
        asking = asyncio.create_task(
            http.post(f"{url}/v1/runs/{RUN}/events{query}", timeout=httpx.Timeout(10, read=read_timeout))
        )
        await asyncio.sleep(0)
        if asyncio.iscoroutine(doing := meanwhile()):
            await doing
        await asyncio.gather(asking, return_exceptions=True)
        held_up.set()
    return dict(answers.wrong)
