"""Places for streams: taken up to each limit, given back whole, whatever changes in between."""

from typing import Any, cast
from uuid import UUID

import pytest

from juinie_shared.db.keys import Principal
from juinie_shared.domain.ids import KeyId, RunId, TenantId
from juinie_shared.runtime.shared_counts import SharedCounts
from juinie_stream_gateway.core.places import Place, PlaceLimits, Places, TooManyStreams

RUN, OTHER_RUN = RunId(UUID(int=1)), RunId(UUID(int=2))


@pytest.fixture
def counts() -> SharedCounts:
    return SharedCounts(cast("Any", None))


def holder(tenant: int = 1, key: int = 1, of_key: int | None = None, **quotas: int | None) -> Principal:
    key_quotas = {} if of_key is None else {"streams": of_key}
    return Principal(TenantId(UUID(int=tenant)), KeyId(UUID(int=key)), frozenset(), quotas, key_quotas)


def taken(places: Places, who: Principal, run_id: RunId = RUN, most: int = 50) -> list[Place]:
    """As many places as there are."""
    got: list[Place] = []
    while len(got) < most:
        try:
            got.append(places.take(who, run_id))
        except TooManyStreams:
            break
    return got


def test_process_tenant_key_and_run_each_have_their_limit(counts: SharedCounts) -> None:
    places = Places(counts, PlaceLimits(process=10, tenant=6, key=4, run=3))
    assert len(taken(places, holder(key=1))) == 3  # the run's
    assert len(taken(places, holder(key=1), OTHER_RUN)) == 1  # the key's
    assert len(taken(places, holder(key=2), OTHER_RUN)) == 2  # the run's and the tenant's
    assert len(taken(places, holder(tenant=2, key=3), RunId(UUID(int=3)))) == 3
    assert len(taken(places, holder(tenant=3, key=4), RunId(UUID(int=4)))) == 1  # the process's


def test_quotas_of_the_tenant_and_the_key_go_before_the_settings(counts: SharedCounts) -> None:
    places = Places(counts, PlaceLimits(process=100, tenant=2, key=2, run=2))
    assert len(taken(places, holder(tenant=2, key=2, streams=5, of_key=4, streams_per_run=None))) == 4
    assert len(taken(places, holder(tenant=3, key=3, streams=None, of_key=9, streams_per_run=7))) == 7


def test_place_that_is_given_back_is_free_again(counts: SharedCounts) -> None:
    places = Places(counts, PlaceLimits(process=2, tenant=2, key=2, run=2))
    for _ in range(100):
        for place in taken(places, holder()):
            places.give_back(place)
    assert len(taken(places, holder())) == 2


def test_refused_stream_holds_nothing(counts: SharedCounts) -> None:
    places = Places(counts, PlaceLimits(process=10, run=1))
    (place,) = taken(places, holder(streams=5))
    assert counts.total(f"streams tenant {UUID(int=1)}") == 1
    places.give_back(place)
    assert counts.names() == []


def test_what_is_not_limited_is_not_counted(counts: SharedCounts) -> None:
    places = Places(counts, PlaceLimits(process=10))
    assert len(taken(places, holder())) == 10
    assert counts.names() == []


def test_limit_that_changes_meanwhile_leaves_the_account_right(counts: SharedCounts) -> None:
    places = Places(counts, PlaceLimits(process=10))
    (first,) = taken(places, holder(), most=1)
    (second,) = taken(places, holder(streams=5), most=1)
    places.give_back(first)
    places.give_back(second)
    assert counts.names() == []
    assert len(taken(places, holder(streams=3))) == 3
