"""A few in each turn, in order, and none forgotten."""

import asyncio
from collections import Counter
from collections.abc import AsyncGenerator, Callable
from itertools import pairwise

import pytest

from juinie_shared.runtime.pace import Pace, a_few_a_turn
from juinie_testkit.turns import turns
from juinie_testkit.waits import eventually

AT_ONCE = 3


async def test_a_few_are_done_in_one_turn_and_the_others_in_the_next_ones_in_order():
    pace, done = Pace(AT_ONCE), list[tuple[int, int]]()
    with turns() as turn:
        for number in range(10):
            pace.do(lambda number=number: done.append((number, turn())))
        assert len(done) == AT_ONCE, "at once, without a turn"
        await eventually(lambda: len(done) == 10, 10, "all")
    assert [number for number, _ in done] == list(range(10))
    assert set(Counter(turn for _, turn in done).values()) == {AT_ONCE, 1}
    assert all(later - sooner <= 1 for (_, sooner), (_, later) in pairwise(done)), "none is left out"


async def test_what_is_asked_for_while_others_wait_is_not_done_before_them():
    pace, done = Pace(2), list[str]()

    def ask() -> None:
        pace.do(lambda: done.append("asked for"))

    for name in ("first", "second"):
        pace.do(lambda name=name: done.append(name))
    pace.do(ask)
    pace.do(lambda: done.append("third"))
    await eventually(lambda: len(done) == 4, 10, "all")
    assert done == ["first", "second", "third", "asked for"]


async def test_as_many_as_may_in_each_turn_never_wait():
    pace, done = Pace(AT_ONCE), 0

    def one_more() -> None:
        nonlocal done
        done += 1

    for _ in range(5):
        before = done
        for _ in range(AT_ONCE):
            pace.do(one_more)
        assert done == before + AT_ONCE
        await asyncio.sleep(0)
        await asyncio.sleep(0)


async def test_it_asks_for_no_turn_while_nobody_comes(monkeypatch: pytest.MonkeyPatch):
    pace, asked, loop = Pace(AT_ONCE), list[object](), asyncio.get_running_loop()
    pace.do(lambda: None)
    await asyncio.sleep(0.01)
    with monkeypatch.context() as patch:
        patch.setattr(loop, "call_soon", lambda act, *_args, **_named: asked.append(act))
        pace.do(lambda: None)
    assert len(asked) == 1, "it rested, and counts again"


async def test_what_fails_is_told_and_the_others_are_done():
    told, done, pace = list[BaseException](), list[int](), Pace(1)
    asyncio.get_running_loop().set_exception_handler(lambda _, context: told.append(context["exception"]))

    def fail() -> None:
        raise ZeroDivisionError

    pace.do(lambda: done.append(1))
    pace.do(fail)
    pace.do(lambda: done.append(2))
    await eventually(lambda: done == [1, 2], 10, "the others")
    assert [type(error) for error in told] == [ZeroDivisionError]


async def test_what_is_gone_through_leaves_others_their_turns():
    seen = Counter[int]()
    with turns() as turn:
        assert [item async for item in noted(seen, turn)] == list(range(10))
    assert max(seen.values()) == AT_ONCE


async def noted(seen: Counter[int], turn: Callable[[], int]) -> AsyncGenerator[int]:
    async for item in a_few_a_turn(range(10), AT_ONCE):
        seen.update([turn()])
        yield item
