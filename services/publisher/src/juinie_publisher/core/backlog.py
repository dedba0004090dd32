"""How much waits in the outbox, and for how long: told every second, also while Kafka is away."""

import asyncio
import time
from typing import Protocol

from juinie_publisher.core.pause import pause
from juinie_publisher.store.outbox import Backlog
from juinie_publisher.telemetry import Telemetry
from juinie_shared.domain.errors import Transient

EVERY_SECONDS = 1.0
REST = 20
"""Counting a long backlog takes a while: we rest so many times as long as it took."""
SUMMARY_EVERY = 10


class Outbox(Protocol):
    async def backlog(self) -> Backlog: ...


async def watch_backlog(outbox: Outbox, telemetry: Telemetry, stopping: asyncio.Event) -> None:
    """Refresh the gauges until `stopping` is set, and write the summary line every tenth time."""
    looks = 0
    while not stopping.is_set():
        began = time.monotonic()
        try:
            backlog = await outbox.backlog()
            telemetry.backlog(backlog.pending, backlog.oldest_age_seconds, backlog.dead_letters)
        except Transient as error:
            telemetry.failed("backlog", error)
        looks += 1
        if looks % SUMMARY_EVERY == 0:
            telemetry.summary()
        await pause(stopping, max(EVERY_SECONDS, REST * (time.monotonic() - began)))
