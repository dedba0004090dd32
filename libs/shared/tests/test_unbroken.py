"""A cancellation that nobody asked for is an error; one that was asked for is an end."""

import asyncio

import pytest

from juinie_shared.runtime.unbroken import BrokenOff, unbroken


async def lets_a_cancellation_escape() -> None:
    inner = asyncio.create_task(asyncio.sleep(60))
    inner.cancel()
    await inner


async def test_what_a_library_lets_escape_is_an_error():
    with pytest.raises(BrokenOff):
        await unbroken(lets_a_cancellation_escape)


async def test_a_task_group_hears_of_it():
    async def group() -> None:
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(unbroken(lets_a_cancellation_escape))
            await asyncio.sleep(60)

    with pytest.raises(ExceptionGroup) as told:
        await group()
    assert told.group_contains(BrokenOff)


async def test_who_is_cancelled_ends():
    task = asyncio.create_task(unbroken(asyncio.sleep, 60))
    await asyncio.sleep(0)
    task.cancel()
    await asyncio.wait({task})
    assert task.cancelled()


async def test_who_is_cancelled_before_it_begins_leaves_nothing_unawaited():
    task = asyncio.create_task(unbroken(lets_a_cancellation_escape))
    task.cancel()
    await asyncio.wait({task})
    assert task.cancelled()


async def test_a_deadline_around_it_is_a_deadline():
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.01):
            await unbroken(asyncio.sleep, 60)


async def test_results_and_errors_go_through():
    async def fails() -> None:
        raise ValueError

    assert await unbroken(asyncio.sleep, 0, "result") == "result"
    with pytest.raises(ValueError):
        await unbroken(fails)
