"""What a client under test tells, and how a client is started: the same for a program and for a task."""

import asyncio
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from typing import Any

import pytest


class ClientLog:
    """What one client told, in the order in which it happened: `open`, `event`, `stream.*`, `lost`, `stopped`."""

    def __init__(self) -> None:
        self.facts: list[dict[str, Any]] = []
        self._changed = asyncio.Condition()

    @property
    def events(self) -> list[dict[str, Any]]:
        return self.named("event")

    @property
    def seqs(self) -> list[int]:
        return [event["seq"] for event in self.events]

    def named(self, name: str) -> list[dict[str, Any]]:
        return [fact for fact in self.facts if fact["fact"] == name]

    async def note(self, name: str, **details: Any) -> None:
        async with self._changed:
            self.facts.append({"fact": name, **details})
            self._changed.notify_all()

    async def until(self, name: str, times: int = 1, timeout_seconds: float = 30) -> None:
        """Wait until the client has told `name` so many times."""
        await self._until(lambda: len(self.named(name)) >= times, f"{times} x {name!r}", timeout_seconds)

    async def until_seq(self, seq: int, timeout_seconds: float = 30) -> None:
        """Wait until the client has got event `seq`."""
        await self._until(lambda: seq in self.seqs, f"event {seq}", timeout_seconds)

    async def _until(self, holds: Callable[[], bool], what: str, timeout_seconds: float) -> None:
        try:
            async with asyncio.timeout(timeout_seconds), self._changed:
                await self._changed.wait_for(holds)
        except TimeoutError:
            pytest.fail(f"no {what} within {timeout_seconds:g} s; the client told: {self.facts[-12:]}")


type Start = Callable[..., AbstractAsyncContextManager[ClientLog]]
"""Starts a client on an address: `start(url, token=…, key=…)`; leaving the context ends the client."""
