"""Connections are shared out: nobody has all, the one with the fewest is next, and none is ever lost."""

import asyncio
from contextlib import AsyncExitStack
from uuid import UUID

import pytest

from juinie_api.core.tenant_pools import Shares
from juinie_shared.domain.errors import DatabaseBusy
from juinie_shared.domain.ids import TenantId

NOISY, QUIET, OTHER = (TenantId(UUID(int=number)) for number in (1, 2, 3))


async def hold(shares: Shares, stack: AsyncExitStack, tenant_id: TenantId) -> bool:
    try:
        await stack.enter_async_context(shares.turn(tenant_id, wait_seconds=0.01))
    except DatabaseBusy:
        return False
    return True


async def take_all(shares: Shares, stack: AsyncExitStack, tenant_id: TenantId) -> int:
    taken = 0
    while await hold(shares, stack, tenant_id):
        taken += 1
    return taken


@pytest.mark.parametrize(("size", "most"), [(1, 1), (2, 1), (3, 2), (4, 3), (8, 6), (20, 15)])
async def test_tenant_holds_no_more_than_its_share(size: int, most: int):
    shares = Shares(size)
    async with AsyncExitStack() as stack:
        assert await take_all(shares, stack, NOISY) == most
        assert await take_all(shares, stack, QUIET) == size - most
    async with AsyncExitStack() as stack:
        assert await take_all(shares, stack, QUIET) == most


async def test_free_connection_goes_to_who_holds_the_fewest_and_then_to_who_came_first():
    shares = Shares(4)
    order: list[str] = []
    stay = asyncio.Event()

    async def work(tenant_id: TenantId, name: str) -> None:
        async with shares.turn(tenant_id, wait_seconds=10):
            order.append(name)
            await stay.wait()

    async with AsyncExitStack() as first, AsyncExitStack() as second:
        assert [await hold(shares, first, NOISY) for _ in range(3)] == [True] * 3
        assert await hold(shares, second, OTHER)
        waiting = [
            asyncio.create_task(work(tenant_id, name))
            for tenant_id, name in ((NOISY, "n1"), (NOISY, "n2"), (OTHER, "o1"), (QUIET, "q1"))
        ]
        await asyncio.sleep(0)
        assert order == []
        await second.aclose()
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert order == ["o1"]
        await first.aclose()
        for _ in range(5):
            await asyncio.sleep(0)
        assert order == ["o1", "q1", "n1", "n2"]
        stay.set()
        await asyncio.gather(*waiting)


async def test_no_turn_is_lost_by_who_gives_up_fails_or_is_cancelled():
    shares = Shares(4)
    for _ in range(50):
        async with AsyncExitStack() as stack:
            assert await take_all(shares, stack, NOISY) == 3
            waiting = [asyncio.create_task(hold(shares, stack, NOISY)) for _ in range(3)]
            await asyncio.sleep(0)
            waiting[1].cancel()
            with pytest.raises(asyncio.CancelledError):
                await waiting[1]
            assert [await waiting[0], await waiting[2]] == [False, False]
        with pytest.raises(ZeroDivisionError):
            async with shares.turn(NOISY):
                raise ZeroDivisionError
    async with AsyncExitStack() as stack:
        assert await take_all(shares, stack, QUIET) == 3
        assert await take_all(shares, stack, NOISY) == 1
    assert (shares._free, shares._held, shares._waiting) == (4, {}, {})


async def test_time_out_of_the_callers_own_is_its_own():
    shares = Shares(4)
    with pytest.raises(TimeoutError):
        async with shares.turn(NOISY):
            raise TimeoutError
