"""Rates: what is let through in a window, what is refused, and what is said about it."""

from typing import Any, cast
from uuid import UUID

import pytest

from juinie_api.core.windows import Use, Windows
from juinie_api.edges.rate_headers import rate_headers
from juinie_shared.db.keys import Principal
from juinie_shared.domain.errors import LimitReached, QuotaExceeded, RateLimited
from juinie_shared.domain.ids import KeyId, TenantId
from juinie_shared.domain.quotas import Quotas
from juinie_shared.runtime.shared_counts import SharedCounts

TENANT, OTHER = TenantId(UUID(int=1)), TenantId(UUID(int=2))


class Counts(SharedCounts):
    """Of one process, at a time that the test sets."""

    def __init__(self) -> None:
        super().__init__(cast("Any", None))
        self.time = 600.0

    def now(self) -> float:
        return self.time


@pytest.fixture
def counts() -> Counts:
    return Counts()


def principal(
    tenant: TenantId = TENANT,
    key: int = 1,
    of_key: Quotas | None = None,
    unmetered: bool = False,
    **quotas: Any,
) -> Principal:
    return Principal(tenant, KeyId(UUID(int=key)), frozenset(), quotas, of_key or {}, unmetered)


async def let_through(windows: Windows, caller: Principal, most: int = 100, **costs: int) -> int:
    """How many charges of this size are let through until one is refused."""
    for number in range(most):
        try:
            await windows.charge(windows.policies(caller), cast("Any", costs or {"requests": 1}))
        except LimitReached:
            return number
    return most


async def test_as_many_requests_as_the_limit_and_then_none(counts: Counts):
    windows = Windows(counts, {}, 60)
    caller = principal(requests_per_minute=3)
    assert await let_through(windows, caller) == 3
    with pytest.raises(RateLimited) as refused:
        await windows.charge(windows.policies(caller), {Use.REQUESTS: 1})
    assert (refused.value.retry_after_seconds, refused.value.policies) == (60, ("tenant-requests",))


async def test_next_window_is_whole_and_nothing_is_left_of_the_last(counts: Counts):
    windows = Windows(counts, {}, 60)
    caller = principal(requests_per_minute=3)
    assert await let_through(windows, caller) == 3
    counts.time = 659.9
    assert await let_through(windows, caller) == 0
    counts.time = 660.0
    assert await let_through(windows, caller) == 3
    assert counts.names() == [f"window 660 tenant-requests {TENANT}"]


async def test_after_the_seconds_that_are_told_a_retry_is_let_through(counts: Counts):
    windows = Windows(counts, {}, 60)
    caller = principal(requests_per_minute=1)
    for moment in (600.0, 601.5, 659.0, 659.999):
        counts.time = moment
        await let_through(windows, caller)
        with pytest.raises(RateLimited) as refused:
            await windows.charge(windows.policies(caller), {Use.REQUESTS: 1})
        counts.time = moment + refused.value.retry_after_seconds
        assert await let_through(windows, caller, most=1) == 1
        counts._own.clear()


async def test_tenant_and_key_are_charged_both_and_refused_by_either(counts: Counts):
    windows = Windows(counts, {}, 60)
    first = principal(key=1, of_key={"requests_per_minute": 2}, requests_per_minute=5)
    second = principal(key=2, requests_per_minute=5)
    assert await let_through(windows, first) == 2
    assert await let_through(windows, second) == 3
    assert await let_through(windows, principal(OTHER, requests_per_minute=5)) == 5


async def test_refused_charge_takes_nothing(counts: Counts):
    windows = Windows(counts, {}, 60)
    caller = principal(events_per_minute=10, bytes_per_minute=100)
    await windows.charge(windows.policies(caller), {Use.EVENTS: 10, Use.BYTES: 90})
    with pytest.raises(QuotaExceeded) as refused:
        await windows.charge(windows.policies(caller), {Use.EVENTS: 1, Use.BYTES: 5})
    assert refused.value.policies == ("tenant-events",)
    assert [at.left for at in await windows.standing(windows.policies(caller))] == [0, 10]


async def test_what_is_larger_than_a_window_takes_a_fresh_one(counts: Counts):
    windows = Windows(counts, {}, 60)
    caller = principal(bytes_per_minute=100)
    assert await let_through(windows, caller, bytes=1000) == 1
    counts.time = 660.0
    assert await let_through(windows, caller, bytes=1, most=1) == 1
    assert await let_through(windows, caller, bytes=1000) == 0


async def test_what_came_to_nothing_is_given_back(counts: Counts):
    windows = Windows(counts, {}, 60)
    policies = windows.policies(principal(events_per_minute=10, requests_per_minute=5))
    window = await windows.charge(policies, {Use.EVENTS: 8, Use.REQUESTS: 1})
    await windows.give_back(policies, {Use.EVENTS: 8}, window)
    assert [(at.policy.name, at.left) for at in await windows.standing(policies)] == [
        ("tenant-requests", 4), ("tenant-events", 10),
    ]  # fmt: skip


async def test_nothing_is_given_back_to_a_later_window(counts: Counts):
    windows = Windows(counts, {}, 60)
    caller = principal(events_per_minute=10)
    window = await windows.charge(windows.policies(caller), {Use.EVENTS: 8})
    counts.time = 660.0
    await windows.give_back(windows.policies(caller), {Use.EVENTS: 8}, window)
    assert await let_through(windows, caller, events=1) == 10


async def test_default_holds_for_a_tenant_without_a_quota_of_its_own(counts: Counts):
    windows = Windows(counts, {"requests_per_minute": 4}, 60)
    assert await let_through(windows, principal()) == 4
    assert await let_through(windows, principal(OTHER, requests_per_minute=None)) == 100
    assert await let_through(windows, principal(TenantId(UUID(int=3)), requests_per_minute=6)) == 6


async def test_limit_that_changes_does_not_forget_what_was_counted(counts: Counts):
    windows = Windows(counts, {}, 60)
    assert await let_through(windows, principal(requests_per_minute=3)) == 3
    assert await let_through(windows, principal(requests_per_minute=5)) == 2


async def test_shorter_window_has_its_share_of_the_minute(counts: Counts):
    windows = Windows(counts, {}, 10)
    assert await let_through(windows, principal(requests_per_minute=60)) == 10
    assert await let_through(windows, principal(OTHER, requests_per_minute=1)) == 1


async def test_development_key_has_no_rate_limit(counts: Counts):
    windows = Windows(counts, {"requests_per_minute": 1}, 60)
    assert windows.policies(principal(unmetered=True, of_key={"requests_per_minute": 1})) == ()


async def test_headers_say_what_holds_and_what_is_left(counts: Counts):
    windows = Windows(counts, {}, 60)
    policies = windows.policies(
        principal(
            of_key={"requests_per_minute": 5},
            requests_per_minute=9,
            events_per_minute=20,
            bytes_per_minute=30,
        )
    )
    counts.time = 630.5
    await windows.charge(policies, {Use.REQUESTS: 1, Use.EVENTS: 2})
    assert rate_headers(await windows.standing(policies)) == [
        (
            b"ratelimit-policy",
            (
                b'"tenant-requests";q=9;w=60, "tenant-events";q=20;w=60;qu="events", '
                b'"tenant-bytes";q=30;w=60;qu="content-bytes", "key-requests";q=5;w=60'
            ),
        ),
        (
            b"ratelimit",
            b'"tenant-requests";r=8;t=30, "tenant-events";r=18;t=30, "tenant-bytes";r=30;t=30, "key-requests";r=4;t=30',
        ),
    ]
