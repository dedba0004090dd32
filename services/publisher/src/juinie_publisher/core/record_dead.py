"""Writes a record of each dead letter to their topic, beside the relay. A topic that takes none holds up nothing.

At least once: what was written and could not be noted is written again. A letter that the topic will not take, or whose
partition does not answer, is put off, and the letters behind it go on.
"""

import asyncio
import time
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import replace
from typing import Protocol

from juinie_publisher.core.backoff import delay_seconds
from juinie_publisher.core.pause import pause
from juinie_publisher.core.relay import BatchFailed, RecordRefused
from juinie_publisher.store.dead_letters import DeadLetter
from juinie_publisher.telemetry import Telemetry
from juinie_shared.contracts.dead_letter import DeadLetterRecord
from juinie_shared.domain.errors import JuinieError, KafkaAway, Transient

EVERY_SECONDS = 1.0
PUT_OFF_SECONDS = 30.0
BATCH = 100
"""Fetched at once: each has the JSON of an event that may be too large for Kafka."""


class DeadLetters(Protocol):
    async def unrecorded(
        self, shards: Iterable[int], limit: int, without: Collection[int]
    ) -> Sequence[DeadLetter]: ...
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
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._dead_letters = dead_letters
        self._topic = topic
        self._telemetry = telemetry
        self._shards = shards
        self._clock = clock
        self._put_off_until: dict[int, float] = {}

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
        shards, now = self._shards(), self._clock()
        self._put_off_until = {letter: until for letter, until in self._put_off_until.items() if until > now}
        letters = (
            await self._dead_letters.unrecorded(shards, BATCH, self._put_off_until.keys()) if shards else ()
        )
        for letter in letters:
            if letter.id not in self._put_off_until:
                await self._record(letter, letters)
        if letters and not self._put_off_until:
            self._telemetry.dead_letters_are_recorded(True)
        return len(letters) == BATCH

    async def _record(self, letter: DeadLetter, letters: Sequence[DeadLetter]) -> None:
        """Write one of these letters, or put it off: alone, or with all of its partition."""
        await self._topic.connect()
        partition = self._topic.partition_of(letter.event.key)
        try:
            await self._write(partition, DeadLetterRecord(letter.event, letter.reason))
        except RecordRefused as refused:
            self._put_off([letter], refused)
        except BatchFailed as failed:
            self._put_off(
                [each for each in letters if self._topic.partition_of(each.event.key) == partition], failed
            )
        else:
            await self._dead_letters.recorded([letter.id])

    async def _write(self, partition: int, record: DeadLetterRecord) -> None:
        """With the event's JSON, or without it where that is too large here too."""
        try:
            await self._topic.send(partition, [record], 0)
        except RecordRefused:
            await self._topic.connect()  # a producer whose record the broker has refused is done with
            await self._topic.send(partition, [replace(record, with_value=False)], 0)

    def _put_off(self, letters: Sequence[DeadLetter], error: JuinieError) -> None:
        self._put_off_until |= dict.fromkeys(
            (letter.id for letter in letters), self._clock() + PUT_OFF_SECONDS
        )
        self._tell(error)

    def _tell(self, error: JuinieError) -> None:
        self._telemetry.failed("dead_letters", error)
        if isinstance(error, KafkaAway | RecordRefused):
            self._telemetry.dead_letters_are_recorded(False, reason=_reason(error))


def _reason(error: JuinieError) -> str:
    return error.reason if isinstance(error, RecordRefused) else str(error.__cause__ or error)
