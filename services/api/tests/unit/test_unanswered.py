"""How much of unanswered requests each tenant may have held."""

from contextlib import suppress
from uuid import UUID

import pytest

from juinie_api.edges.unanswered import Unanswered
from juinie_shared.domain.errors import ServerBusy
from juinie_shared.domain.ids import TenantId


def tenants(count: int) -> list[TenantId]:
    return [TenantId(UUID(int=number + 1)) for number in range(count)]


@pytest.mark.parametrize(("greedy", "share"), [(1, 600), (2, 400), (5, 200), (11, 100)])
def test_as_much_is_left_free_as_the_greediest_hold(greedy: int, share: int):
    unanswered = Unanswered(1200)
    for _ in range(1200):
        for tenant_id in tenants(greedy):
            with suppress(ServerBusy):
                unanswered.take(tenant_id, 1)
    assert unanswered.held_bytes == greedy * share
    newcomer = tenants(greedy + 1)[-1]
    unanswered.take(newcomer, share // 2)
    with pytest.raises(ServerBusy):
        unanswered.take(newcomer, share)


def test_what_is_given_back_can_be_taken_again_and_nothing_is_kept_of_its_tenant():
    unanswered, (mine, other) = Unanswered(100), tenants(2)
    for _ in range(3):
        unanswered.take(mine, 30)
        unanswered.take(mine, 20)
        with pytest.raises(ServerBusy):
            unanswered.take(mine, 1)
        unanswered.take(other, 20)
        unanswered.give_back(other, 20)
        unanswered.give_back(mine, 50)
    assert unanswered.held_bytes == 0
    assert mine.hex not in repr(vars(unanswered))


def test_each_refusal_is_told():
    told: list[int] = []
    unanswered, (mine,) = Unanswered(10, lambda: told.append(1)), tenants(1)
    for _ in range(3):
        with pytest.raises(ServerBusy):
            unanswered.take(mine, 6)
    assert len(told) == 3
