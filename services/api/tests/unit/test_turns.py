"""Who takes a run's row lock waits once for all: what its turn at the run took is off its wait for a connection. And it
waits for nobody who only names the run: a turn is taken before anybody knows whose run it is."""

from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from typing import Any
from uuid import UUID

import pytest

from juinie_api.core.append import Append, OneByOne
from juinie_api.core.cancel import cancel
from juinie_api.core.delete import delete
from juinie_api.core.lanes import WIDTH, RunLanes
from juinie_api.core.lease import heartbeat
from juinie_shared.domain.errors import DatabaseBusy
from juinie_shared.domain.ids import RunId, TenantId

RUN, TENANT, LEASE = RunId(UUID(int=1)), TenantId(UUID(int=2)), UUID(int=3)
OTHER = TenantId(UUID(int=4))
TURN_SECONDS = 0.5


class FullPools:
    """Has no connection, and remembers how long it was asked to wait for one."""

    def __init__(self) -> None:
        self.asked = list[float]()

    def of(self, _tenant_id: TenantId, wait_seconds: float) -> Any:
        self.asked.append(wait_seconds)
        raise DatabaseBusy


def wake() -> None: ...


WRITES = pytest.mark.parametrize(
    "write",
    [
        pytest.param(
            lambda pools, lanes: OneByOne(pools, lanes, wake).commit(Append(RUN, TENANT, [])), id="append"
        ),
        pytest.param(lambda pools, lanes: cancel(pools, lanes, wake, RUN, TENANT, None, None), id="cancel"),
        pytest.param(lambda pools, lanes: delete(pools, lanes, RUN, TENANT), id="delete"),
        pytest.param(lambda pools, lanes: heartbeat(pools, lanes, RUN, TENANT, LEASE, None), id="heartbeat"),
    ],
)


@WRITES
async def test_a_connection_is_waited_for_no_longer_than_the_turn_lasts(
    write: Callable[[Any, RunLanes], Awaitable[object]],
):
    pools = FullPools()
    with pytest.raises(DatabaseBusy):
        await write(pools, RunLanes(TURN_SECONDS))
    (asked,) = pools.asked
    assert asked <= TURN_SECONDS


@WRITES
async def test_another_tenants_turns_at_a_run_hold_up_nobody(
    write: Callable[[Any, RunLanes], Awaitable[object]],
):
    pools, lanes = FullPools(), RunLanes(TURN_SECONDS)
    async with AsyncExitStack() as theirs:
        for _ in range(WIDTH):
            await theirs.enter_async_context(lanes.turn(OTHER, RUN))
        with pytest.raises(DatabaseBusy):  # it came as far as the database; else its run were locked
            await write(pools, lanes)
    assert len(pools.asked) == 1
