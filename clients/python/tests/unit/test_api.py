"""What a refusal proves: nothing was done, unless an earlier try of the same request got no answer."""

import math
from collections.abc import Callable

import httpx
import pytest

from juinie.answers import RUN, read_object
from juinie.api import Api
from juinie.errors import LeaseLost, Refused, RunFull
from juinie.events import RunEvent

type Answer = httpx.Response | Exception

LOST = {"code": "lease_lost", "detail": "Another worker has the run."}
FULL = {"code": "run_full", "detail": "The run would have more events than it may."}


async def refused_after(*answers: Answer) -> Refused:
    """What is raised when these come, one after the other."""
    coming = iter(answers)

    def answer(_: httpx.Request) -> httpx.Response:
        match next(coming):
            case httpx.Response() as response:
                return response
            case Exception() as error:
                raise error

    async with httpx.AsyncClient(transport=httpx.MockTransport(answer)) as http:
        with pytest.raises(Refused) as raised:
            await Api(http, ["http://juinie.test"]).send("POST", "/v1/runs/r/events", json={})
    return raised.value


@pytest.mark.parametrize(
    ("first", "doubtful"),
    [
        (lambda: httpx.ReadTimeout("no answer"), True),
        (lambda: httpx.ConnectError("refused"), True),
        (lambda: httpx.Response(503), True),
        (lambda: httpx.Response(502), True),
        (lambda: httpx.DecodingError("not gzip"), True),
        (lambda: httpx.Response(429), False),
    ],
    ids=["no answer", "no connection", "503", "502", "no gzip", "429"],
)
async def test_refusal_says_whether_an_earlier_try_may_have_been_done(
    first: Callable[[], Answer], doubtful: bool
) -> None:
    refusal = await refused_after(first(), httpx.Response(409, json=LOST))

    assert isinstance(refusal, LeaseLost)
    assert refusal.after_no_answer is doubtful


async def test_refusal_of_the_first_try_is_a_proof() -> None:
    assert (await refused_after(httpx.Response(409, json=LOST))).after_no_answer is False


async def test_full_run_is_told_at_once_and_not_asked_again() -> None:
    refusal = await refused_after(httpx.Response(409, json=FULL))

    assert isinstance(refusal, RunFull)
    assert refusal.retry_after_seconds == 0


async def test_a_number_that_python_takes_for_too_long_makes_nothing_unreadable() -> None:
    """The API keeps its text: whoever asks for the run gets all else of it."""
    digits = b"1" * 5_000
    run = b'{"run_id":"r","status":"running","last_seq":1,"created_at":"t","input":' + digits + b"}"
    transport = httpx.MockTransport(lambda _: httpx.Response(200, content=run))
    async with httpx.AsyncClient(transport=transport) as http:
        answer = await Api(http, ["http://juinie.test"]).send("GET", "/v1/runs/r")
    found = read_object(answer, RUN)
    assert (found["run_id"], found["input"]) == ("r", math.inf)
    event = RunEvent.read(
        b'{"seq":1,"type":"x","time":"t","data":{"n":' + digits + b',"m":' + b"1" * 4_000 + b"}}"
    )
    assert event.data == {"n": math.inf, "m": int("1" * 4_000)}
    assert digits in event.raw_data
