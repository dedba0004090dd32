"""The turnstile: so many inside, the others in order, and no turn is ever lost."""

import asyncio

import pytest

from juinie_shared.domain.errors import DatabaseBusy
from juinie_stream_gateway.core.turnstile import Turnstile


class Guests:
    """Each enters, notes it, and stays until it is let go."""

    def __init__(self, turnstile: Turnstile) -> None:
        self._turnstile = turnstile
        self.inside: list[str] = []

    async def come(self, name: str, until: asyncio.Event) -> None:
        await self._turnstile.enter()
        self.inside.append(name)
        try:
            await until.wait()
        finally:
            self._turnstile.leave()


async def breathe() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


async def test_those_who_wait_enter_in_order_as_others_leave() -> None:
    guests, go = Guests(Turnstile(2, 60)), {name: asyncio.Event() for name in "abcd"}
    coming = [asyncio.create_task(guests.come(name, go[name])) for name in "abcd"]
    await breathe()
    assert guests.inside == ["a", "b"]
    go["b"].set()
    await breathe()
    assert guests.inside == ["a", "b", "c"]
    for event in go.values():
        event.set()
    await asyncio.gather(*coming)
    assert guests.inside == ["a", "b", "c", "d"]


async def test_who_gives_up_takes_nobody_s_turn() -> None:
    guests, go = Guests(Turnstile(1, 60)), asyncio.Event()
    first = asyncio.create_task(guests.come("a", go))
    await breathe()
    leaving, staying = (asyncio.create_task(guests.come(name, go)) for name in "bc")
    await breathe()
    leaving.cancel()
    go.set()
    await asyncio.gather(first, staying)
    assert guests.inside == ["a", "c"]


async def test_a_turn_that_comes_as_one_is_broken_off_goes_to_the_next() -> None:
    turnstile = Turnstile(1, 60)
    guests, go = Guests(turnstile), asyncio.Event()
    await turnstile.enter()
    leaving = asyncio.create_task(guests.come("a", go))
    await breathe()
    staying = asyncio.create_task(guests.come("b", go))
    await breathe()
    turnstile.leave()  # to the one who is broken off in this very turn of the loop
    leaving.cancel()
    go.set()
    await staying
    assert guests.inside == ["b"]
    await turnstile.enter()  # and the place is free again


async def test_who_waits_too_long_is_told_that_the_database_is_busy() -> None:
    turnstile = Turnstile(1, 0.01)
    await turnstile.enter()
    with pytest.raises(DatabaseBusy):
        await turnstile.enter()
    turnstile.leave()
    await turnstile.enter()
