"""Wake-ups over a connection that breaks: what was not sent is sent again, and the loss is told once."""

import asyncio
from typing import Any

import pytest

from juinie_api import telemetry
from juinie_api.core import notifier
from juinie_shared.domain.errors import DatabaseAway
from juinie_testkit.waits import eventually


class Database:
    """Takes statements, and none while it is away."""

    def __init__(self) -> None:
        self.away = False
        self.taken: list[str] = []

    async def connect(self) -> Any:
        return self

    async def execute(self, statement: str) -> None:
        if self.away:
            raise DatabaseAway
        self.taken.append(statement)

    def terminate(self) -> None: ...


async def test_a_lost_connection_is_counted_each_time_and_told_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(notifier, "RETRY_SECONDS", 0)
    database, failures, told = Database(), list[int](), list[str]()
    waker = notifier.Notifier(database.connect, lambda: failures.append(1), told.append)
    running = asyncio.create_task(waker.run())
    waker.wake()
    await eventually(lambda: database.taken, 5, "the first wake-up to be sent")
    database.away = True
    waker.wake()
    await eventually(lambda: len(failures) > 2, 5, "three failures")
    assert (len(database.taken), told) == (1, [telemetry.NOTIFY_LOST])
    database.away = False
    await eventually(lambda: len(database.taken) > 1, 5, "what was not sent to be sent")
    database.away = True
    waker.wake()
    await eventually(lambda: len(told) > 1, 5, "the second loss to be told")
    running.cancel()
