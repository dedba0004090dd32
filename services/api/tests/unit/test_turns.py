"""Who takes a run's row lock waits once for all: what its turn at the run took is off its wait for a connection."""

from collections.abc import Awaitable, Callable
from typing import Any
from uuid import UUID

import pytest

from juinie_api.core.append import Append, OneByOne
from juinie_api.core.cancel import cancel
from juinie_api.core.delete import delete
from juinie_api.core.lanes import RunLanes
from juinie_api.core.lease import heartbeat
from juinie_shared.domain.errors import DatabaseBusy
from juinie_shared.domain.ids import RunId, TenantId

RUN, TENANT, LEASE = RunId(UUID(int=1)), TenantId(UUID(int=2)), UUID(int=3)
TURN_SECONDS = 0.5


class FullPools:
    """Has no connection, and remembers how long it was asked to wait for one."""

    def __init__(self) -> None:
        self.asked = list[float]()

    def of(self, _tenant_id: TenantId, wait_seconds: float) -> Any:
        self.asked.append(wait_seconds)
        raise DatabaseBusy


def wake() -> None: ...


@pytest.mark.parametrize(
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
async def test_a_connection_is_waited_for_no_longer_than_the_turn_lasts(
    write: Callable[[Any, RunLanes], Awaitable[object]],
):
    pools = FullPools()
    with pytest.raises(DatabaseBusy):
        await write(pools, RunLanes(TURN_SECONDS))
    (asked,) = pools.asked
    assert asked <= TURN_SECONDS
