"""Writes a record of each dead letter to their topic, beside the relay. A topic that takes none holds up nothing.

At least once: what was written and could not be noted is written again.
"""

import asyncio
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import replace
from typing import Protocol

from juinie_publisher.core.backoff import delay_seconds
from juinie_publisher.core.pause import pause
from juinie_publisher.core.relay import RecordRefused
from juinie_publisher.store.dead_letters import DeadLetter
from juinie_publisher.telemetry import Telemetry
from juinie_shared.contracts.dead_letter import DeadLetterRecord
from juinie_shared.domain.errors import KafkaAway, Transient

EVERY_SECONDS = 1.0
BATCH = 100
"""Fetched at once: each has the JSON of an event that may be too large for Kafka."""


class DeadLetters(Protocol):
    async def unrecorded(self, shards: Iterable[int], limit: int) -> Sequence[DeadLetter]: ...
    async def recorded(self, ids: Sequence[int]) -> None: ...


class Topic(Protocol):
    async def connect(self) -> None: ...
    def partition_of(self, key: bytes) -> int: ...
    async def send(self, partition: int, records: Sequence[DeadLetterRecord], start: int) -> int: ...


class Recorder:
    """Looks every second for dead letters of its shards whose record is not written."""

    def __init__(
        self,
        dead_letters: DeadLetters,
        topic: Topic,
        telemetry: Telemetry,
        shards: Callable[[], Collection[int]],
    ) -> None:
        self._dead_letters = dead_letters
        self._topic = topic
        self._telemetry = telemetry
        self._shards = shards

    async def run(self, stopping: asyncio.Event) -> None:
        """Record until `stopping` is set."""
        failures = 0
        while not stopping.is_set():
            try:
                full = await self.round()
            except Transient as error:
                self._tell(error)
                failures += 1
                await pause(stopping, EVERY_SECONDS + delay_seconds(failures))
            else:
                failures = 0
                if not full:
                    await pause(stopping, EVERY_SECONDS)

    async def round(self) -> bool:
        """Record some. Gives whether there may be more. Connects to the topic only when there is something to write."""
        shards = self._shards()
        letters = await self._dead_letters.unrecorded(shards, BATCH) if shards else ()
        if letters:
            await self._topic.connect()
            for letter in letters:
                await self._write(DeadLetterRecord(letter.event, letter.reason))
                await self._dead_letters.recorded([letter.id])
            self._telemetry.dead_letters_are_recorded(True)
        return len(letters) == BATCH

    async def _write(self, record: DeadLetterRecord) -> None:
        """With the event's JSON, or without it where that is too large here too."""
        partition = self._topic.partition_of(record.key)
        try:
            await self._topic.send(partition, [record], 0)
        except RecordRefused:
            await self._topic.send(partition, [replace(record, with_value=False)], 0)

    def _tell(self, error: Transient) -> None:
        self._telemetry.failed(error)
        if isinstance(error, KafkaAway):
            self._telemetry.dead_letters_are_recorded(False, reason=str(error.__cause__ or error))
