"""Wake-ups go out at once, or soon after the one before; over a connection that breaks, what was not sent is sent again, and the
loss is told once."""

import asyncio
from collections.abc import AsyncGenerator
from typing import Any

import pytest

from juinie_api import telemetry
from juinie_api.core import notifier
from juinie_api.core.notifier import Notifier
from juinie_shared.contracts.names import OUTBOX_CHANNEL, PENDING_CHANNEL
from juinie_shared.domain.errors import DatabaseAway
from juinie_testkit.waits import eventually


class Database:
    """Takes statements, and none while it is away; answers at once, unless it is `slow`: then when `answers` is set."""

    def __init__(self) -> None:
        self.away = self.slow = self.connected = False
        self.answers = asyncio.Event()
        self.taken: list[str] = []

    async def connect(self) -> Any:
        self.connected = True
        return self

    async def execute(self, statement: str) -> None:
        if self.away:
            raise DatabaseAway
        self.taken.append(statement)
        if self.slow:
            await self.answers.wait()

    def terminate(self) -> None: ...


async def test_a_lost_connection_is_counted_each_time_and_told_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(notifier, "RETRY_SECONDS", 0)
    database, failures, told = Database(), list[int](), list[str]()
    waker = notifier.Notifier(database.connect, lambda: failures.append(1), told.append)
    running = asyncio.create_task(waker.run())
    waker.wake()
    await eventually(lambda: database.taken, 30, "the first wake-up to be sent")
    database.away = True
    waker.wake()
    await eventually(lambda: len(failures) > 2, 30, "three failures")
    assert (len(database.taken), told) == (1, [telemetry.NOTIFY_LOST])
    database.away = False
    await eventually(lambda: len(database.taken) > 1, 30, "what was not sent to be sent")
    database.away = True
    waker.wake()
    await eventually(lambda: len(told) > 1, 30, "the second loss to be told")
    running.cancel()


@pytest.fixture
async def database() -> Database:
    return Database()


@pytest.fixture
async def resting(database: Database) -> AsyncGenerator[Notifier]:
    """One that has nothing to send."""
    resting = Notifier(database.connect, lambda: None, lambda _: None)
    running = asyncio.create_task(resting.run())
    await eventually(lambda: database.connected, 30, "a connection")
    await asyncio.sleep(0)
    yield resting
    running.cancel()
    await asyncio.wait({running})


async def test_who_rests_sends_before_anybody_else_has_a_turn(database: Database, resting: Notifier):
    resting.wake_workers()
    assert database.taken == [f"NOTIFY {OUTBOX_CHANNEL};NOTIFY {PENDING_CHANNEL}"]


async def test_who_has_just_sent_sends_all_that_came_meanwhile_at_once(
    database: Database, resting: Notifier, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(notifier, "REST_SECONDS", 0.05)
    resting.wake()
    await asyncio.sleep(0)
    resting.wake()
    resting.wake()
    assert len(database.taken) == 1, "it rests for a while after each"
    await eventually(lambda: len(database.taken) > 1, 30, "a second wake-up")
    assert len(database.taken) == 2


async def test_what_comes_while_a_wake_up_is_under_way_is_sent_after_it(
    database: Database, resting: Notifier
):
    database.slow = True
    resting.wake()
    resting.wake_workers()
    await asyncio.sleep(0)
    assert database.taken == [f"NOTIFY {OUTBOX_CHANNEL}"]
    database.answers.set()
    await eventually(lambda: len(database.taken) > 1, 30, "a second wake-up")
    assert database.taken[1:] == [f"NOTIFY {OUTBOX_CHANNEL};NOTIFY {PENDING_CHANNEL}"]
