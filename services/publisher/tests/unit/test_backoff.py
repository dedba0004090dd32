"""When what failed is tried again."""

import asyncio

from juinie_publisher.core.backoff import ShardBackoff, delay_seconds
from juinie_publisher.core.doorbell import Doorbell


class Clock:
    now = 0.0

    def __call__(self):
        return self.now


def test_delay_doubles_up_to_a_second():
    assert [delay_seconds(failures) for failures in range(1, 8)] == [0.05, 0.1, 0.2, 0.4, 0.8, 1.0, 1.0]
    assert delay_seconds(10_000) == 1.0


def test_failed_shard_waits_longer_each_time_and_the_others_do_not():
    clock = Clock()
    backoff = ShardBackoff(clock)
    backoff.settle({0, 1}, {1})
    assert backoff.due(range(3)) == [0, 2]
    clock.now = 0.05
    assert backoff.due(range(3)) == [0, 1, 2]
    backoff.settle({1}, {1})
    clock.now = 0.14
    assert backoff.due(range(3)) == [0, 2]
    clock.now = 0.16
    assert backoff.due(range(3)) == [0, 1, 2]


def test_success_forgets_the_failures():
    clock = Clock()
    backoff = ShardBackoff(clock)
    for _ in range(5):
        backoff.settle({0}, {0})
    clock.now = 5.0
    backoff.settle({0}, set())
    assert backoff.due(range(1)) == [0]
    backoff.settle({0}, {0})
    clock.now = 5.06
    assert backoff.due(range(1)) == [0]


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
