"""When what failed is tried again."""

import asyncio

from juinie_publisher.core.backoff import FORGET_SECONDS, RunBackoff, delay_seconds
from juinie_publisher.core.doorbell import Doorbell
from juinie_shared.domain.ids import new_run_id

A, B = new_run_id(), new_run_id()


class Clock:
    now = 0.0

    def __call__(self):
        return self.now


def test_delay_doubles_up_to_a_second():
    assert [delay_seconds(failures) for failures in range(1, 8)] == [0.05, 0.1, 0.2, 0.4, 0.8, 1.0, 1.0]
    assert delay_seconds(10_000) == 1.0


def test_a_run_that_failed_rests_longer_each_time_and_the_others_do_not():
    clock = Clock()
    backoff = RunBackoff(clock)
    backoff.settle({B}, {A})
    assert backoff.resting() == {A}
    clock.now = 0.05
    assert backoff.resting() == set()
    backoff.settle((), {A})
    clock.now = 0.14
    assert backoff.resting() == {A}
    clock.now = 0.16
    assert backoff.resting() == set()
    assert backoff.any_failed, "it has not gone well yet"


def test_where_very_many_fail_each_rests_until_all_can_be_passed():
    clock = Clock()
    backoff = RunBackoff(clock)
    many = [new_run_id() for _ in range(100_000)]
    backoff.settle((), many)
    backoff.settle((), many)
    clock.now = 4.9
    assert backoff.resting() == set(many)
    clock.now = 5.1
    assert backoff.resting() == set()
    backoff.settle(many, {A})
    clock.now += 0.06
    assert backoff.resting() == set(), "a single one as usual"


def test_success_forgets_the_failures():
    clock = Clock()
    backoff = RunBackoff(clock)
    for _ in range(5):
        backoff.settle((), {A})
    backoff.settle({A}, ())
    assert backoff.resting() == set()
    assert not backoff.any_failed
    backoff.settle((), {A})
    clock.now = 0.06
    assert backoff.resting() == set()


def test_what_is_not_tried_again_is_not_kept():
    clock = Clock()
    backoff = RunBackoff(clock)
    backoff.settle((), {A})
    clock.now = FORGET_SECONDS
    assert backoff.resting() == set()
    assert backoff.any_failed
    clock.now += 1
    assert backoff.resting() == set()
    assert not backoff.any_failed


async def test_ring_before_the_wait_is_not_lost():
    bell = Doorbell()
    bell.ring()
    async with asyncio.timeout(1):
        await bell.wait(60)


async def test_two_rings_wake_once():
    bell = Doorbell()
    bell.ring()
    bell.ring()
    await bell.wait(60)
    waiting = asyncio.create_task(bell.wait(60))
    await asyncio.sleep(0)
    assert not waiting.done()
    bell.ring()
    await waiting
