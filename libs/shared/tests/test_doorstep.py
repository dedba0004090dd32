"""Of a crowd a few are let in in each turn, in whatever order they ask."""

import asyncio
import socket
from collections.abc import AsyncGenerator, Generator
from contextlib import ExitStack

import pytest

from juinie_shared.runtime.doorstep import INSIDE, Doorstep

AT_ONCE = 3

type Pairs = list[tuple[socket.socket, socket.socket]]


@pytest.fixture
def pairs() -> Generator[Pairs]:
    """Ours, and the client's."""
    with ExitStack() as open_ones:
        yield [
            (open_ones.enter_context(ours), open_ones.enter_context(theirs))
            for ours, theirs in (socket.socketpair() for _ in range(4 * AT_ONCE))
        ]


@pytest.fixture
async def doorstep() -> AsyncGenerator[Doorstep]:
    made = Doorstep(AT_ONCE)
    yield made
    made.close()


async def test_so_many_are_inside_and_the_others_wait(doorstep: Doorstep) -> None:
    assert [doorstep.come() for _ in range(AT_ONCE + 2)] == [INSIDE] * AT_ONCE + [None] * 2
    doorstep.leave(INSIDE)
    assert [doorstep.come() for _ in range(2)] == [INSIDE, None]


async def test_a_few_are_let_in_in_each_turn_and_each_once(doorstep: Doorstep, pairs: Pairs) -> None:
    let_in, turns = list[int](), list[int]()
    for ours, _ in pairs:
        doorstep.wait(ours.fileno(), lambda ours=ours: let_in.append(ours.fileno()))
    await asyncio.sleep(0.01)
    assert not let_in, "nobody has asked"
    for _, theirs in pairs:
        theirs.send(b"x")
    while len(let_in) < len(pairs):
        before = len(let_in)
        await asyncio.sleep(0)
        turns.append(len(let_in) - before)
    await asyncio.sleep(0.01)

    assert 0 < max(turns) <= AT_ONCE
    assert sorted(let_in) == sorted(ours.fileno() for ours, _ in pairs)


async def test_who_hangs_up_is_let_in_and_who_left_is_not(doorstep: Doorstep, pairs: Pairs) -> None:
    let_in = list[str]()
    (hangs_up, its_client), (leaves, other_client), *_ = pairs
    doorstep.wait(hangs_up.fileno(), lambda: let_in.append("hangs up"))
    place = doorstep.wait(leaves.fileno(), lambda: let_in.append("left"))
    assert place is not None
    doorstep.leave(place)
    its_client.close()
    other_client.send(b"x")
    await asyncio.sleep(0.05)

    assert let_in == ["hangs up"]


async def test_when_it_is_closed_nobody_is_let_in_and_all_may_leave(doorstep: Doorstep, pairs: Pairs) -> None:
    let_in = list[str]()
    (ours, theirs), *_ = pairs
    place = doorstep.wait(ours.fileno(), lambda: let_in.append("in"))
    assert place is not None
    theirs.send(b"x")
    doorstep.close()
    doorstep.leave(place)
    assert doorstep.wait(theirs.fileno(), lambda: None) is None
    await asyncio.sleep(0.05)

    assert not let_in
