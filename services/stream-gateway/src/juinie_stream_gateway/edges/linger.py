"""How long Kafka gathers records before it answers a fetch: while they come one after the other anyway, and not after a rest.

The broker does the waiting, so what is gathered is read at once. aiokafka has its two settings for this when it is made and
reads them again for each fetch; that they can be changed meanwhile is private, of the version in the lock, and
`tests/contract/test_linger.py` sees that it is still so.
"""

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from aiokafka import TopicPartition

from juinie_stream_gateway.edges.bare_records import BareRecord

MOST_RECORDS = 500
"""Of a poll."""
GATHERED_BYTES = 1024 * 1024
"""So many are answered before the time is over."""
REST_POLL_MS, GATHERING_POLL_MS = 1000, 100
"""How long a poll waits for a record. While Kafka gathers, each fetch in vain is over soon and another one is made."""
TURNS_TO_FETCH = 4
"""Of the loop, in which aiokafka makes its next fetch and sends it."""


class Linger:
    """Polls one consumer, which has started. With `seconds` of 0 every fetch is answered as soon as there is a record."""

    def __init__(self, consumer: Any, seconds: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._consumer, self._fetcher = consumer, consumer._fetcher  # noqa: SLF001
        self._seconds, self._clock = seconds, clock
        self._at_once = self._fetcher._fetch_max_wait_ms, self._fetcher._fetch_min_bytes  # noqa: SLF001
        self._gathering = max(1, round(seconds * 1000)), GATHERED_BYTES
        self.gathers = False

    async def poll(self) -> Mapping[TopicPartition, Sequence[BareRecord]]:
        """What has come, of each partition; nothing when nothing has come for a while.

        Where Kafka gathers, the next fetch leaves first: it is gathered for while what has come is handed on. Who is cancelled
        meanwhile loses that, and has to begin a new session: what nobody handed on is found in Postgres.
        """
        began = self._clock()
        timeout_ms = GATHERING_POLL_MS if self.gathers else REST_POLL_MS
        batches = await self._consumer.getmany(timeout_ms=timeout_ms, max_records=MOST_RECORDS)
        self._ask_for_more(bool(batches), self._clock() - began)
        if self.gathers and not self._fetcher._records:  # noqa: SLF001 - while there is more in hand nothing is fetched
            for _ in range(TURNS_TO_FETCH):
                await asyncio.sleep(0)
        return batches

    def _ask_for_more(self, brought: bool, waited_seconds: float) -> None:
        """aiokafka makes its next fetch in a later turn."""
        self.gathers = brought and waited_seconds < 2 * self._seconds
        wait_and_bytes = self._gathering if self.gathers else self._at_once
        self._fetcher._fetch_max_wait_ms, self._fetcher._fetch_min_bytes = wait_and_bytes  # noqa: SLF001
