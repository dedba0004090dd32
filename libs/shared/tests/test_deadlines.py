"""Waits of one length: each has all of its time, whoever else waits, and nobody's answer is another's."""

import asyncio
import weakref

import pytest

from juinie_shared.domain.errors import DatabaseBusy
from juinie_shared.runtime.deadlines import Deadlines

LONG, SHORT = 60.0, 0.05


def answer() -> "asyncio.Future[str]":
    return asyncio.get_running_loop().create_future()


async def test_what_is_answered_in_time_is_given() -> None:
    deadlines, (first, second) = Deadlines(LONG), (answer(), answer())
    waiting = asyncio.gather(deadlines.wait(first), deadlines.wait(second))
    await asyncio.sleep(0)
    second.set_result("second")
    first.set_result("first")
    assert await waiting == ["first", "second"]


async def test_who_waits_too_long_is_told_so_and_those_behind_in_their_turn() -> None:
    deadlines = Deadlines(SHORT, late=DatabaseBusy)
    answered, late, later = answer(), answer(), answer()
    waiting = [asyncio.create_task(deadlines.wait(one)) for one in (answered, late)]
    await asyncio.sleep(0)
    answered.set_result("in time")
    await asyncio.sleep(SHORT / 2)
    waiting.append(asyncio.create_task(deadlines.wait(later)))
    results = await asyncio.gather(*waiting, return_exceptions=True)
    assert results[0] == "in time"
    assert [type(result) for result in results[1:]] == [DatabaseBusy, DatabaseBusy]


async def test_who_comes_when_all_have_left_has_a_deadline_of_its_own() -> None:
    deadlines = Deadlines(SHORT)
    with pytest.raises(TimeoutError):
        await deadlines.wait(answer())
    with pytest.raises(TimeoutError):
        await deadlines.wait(answer())


async def test_an_error_is_told_to_who_waits_for_it() -> None:
    deadlines, one = Deadlines(LONG), answer()
    waiting = asyncio.create_task(deadlines.wait(one))
    await asyncio.sleep(0)
    one.set_exception(ValueError("no"))
    with pytest.raises(ValueError, match="no"):
        await waiting


async def test_who_is_broken_off_leaves_the_others_theirs(caplog: pytest.LogCaptureFixture) -> None:
    deadlines, (one, other) = Deadlines(SHORT), (answer(), answer())
    leaving = asyncio.create_task(deadlines.wait(one))
    staying = asyncio.create_task(deadlines.wait(other))
    await asyncio.sleep(0)
    leaving.cancel()
    with pytest.raises(TimeoutError):
        await staying
    assert leaving.cancelled()
    assert not caplog.records


async def test_nothing_keeps_what_was_given_though_one_before_still_waits() -> None:
    class Page:
        """As large as can be."""

    deadlines, first = Deadlines(LONG), answer()
    waiting = asyncio.create_task(deadlines.wait(first))
    await asyncio.sleep(0)
    second: asyncio.Future[Page] = asyncio.get_running_loop().create_future()
    getting = asyncio.create_task(deadlines.wait(second))
    await asyncio.sleep(0)
    second.set_result(Page())
    kept = weakref.ref(await getting)
    del second, getting
    await asyncio.sleep(0)  # the loop, too, lets go of what it has just woken
    assert kept() is None
    first.set_result("first")
    assert await waiting == "first"
