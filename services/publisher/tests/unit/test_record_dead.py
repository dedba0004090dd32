"""The recorder of dead letters: one that cannot be recorded is put off, told, and holds up no other."""

from dataclasses import dataclass, field

import pytest
import structlog

from juinie_publisher.core.record_dead import PUT_OFF_SECONDS, Recorder
from juinie_publisher.core.relay import BatchFailed, RecordRefused
from juinie_publisher.store.dead_letters import DeadLetter
from juinie_shared.domain.errors import KafkaAway
from juinie_shared.domain.ids import new_run_id


@dataclass
class FakeDeadLetters:
    waiting: list[DeadLetter]

    async def unrecorded(self, _shards, limit, without):
        return [letter for letter in self.waiting if letter.id not in without][:limit]

    async def recorded(self, ids):
        self.waiting = [letter for letter in self.waiting if letter.id not in ids]


@dataclass
class FakeDeadTopic:
    """Two partitions. `fails`: what is raised for a seq, or for all of a partition: -1 less its number."""

    fails: dict[int, Exception] = field(default_factory=dict)
    away: bool = False
    written: list[int] = field(default_factory=list)
    tried: list[int] = field(default_factory=list)

    async def connect(self):
        if self.away:
            raise KafkaAway

    def partition_of(self, key):
        return key[-1] % 2

    async def send(self, partition, records, start):
        seq = records[start].event.seq
        self.tried.append(seq)
        if error := self.fails.get(seq) or self.fails.get(-1 - partition):
            raise error
        self.written.append(seq)
        return start + 1


@pytest.fixture
def letters(record_maker):
    """Six letters of two runs, by turns: ids and seqs 1..6, the odd ones in one partition."""
    runs = {}
    while len(runs) < 2:
        run = new_run_id()
        runs[str(run).encode()[-1] % 2] = run
    return [DeadLetter(n, record_maker(runs[n % 2], n), "message_too_large") for n in range(1, 7)]


@pytest.fixture
def now():
    return [100.0]


@pytest.fixture
def recorder_of(told, now):
    return lambda dead, topic: Recorder(dead, topic, told.telemetry, lambda: {0}, lambda: now[0])


def lines(logs):
    return [(line["event"], line.get("reason")) for line in logs if line["event"].startswith("dead_letters_")]


async def test_letter_that_does_not_fit_its_topic_is_put_off_and_those_behind_it_go_on(
    letters, recorder_of, told, now
):
    dead, topic = FakeDeadLetters(letters), FakeDeadTopic(fails={2: RecordRefused("message_too_large")})
    recorder = recorder_of(dead, topic)
    with structlog.testing.capture_logs() as logs:
        await recorder.round()
        assert topic.written == [1, 3, 4, 5, 6]
        assert topic.tried.count(2) == 2, "with its JSON and without"
        await recorder.round()
        assert topic.tried.count(2) == 2
        now[0] += PUT_OFF_SECONDS
        topic.fails.clear()
        await recorder.round()
    assert topic.written[-1] == 2
    assert dead.waiting == []
    assert lines(logs) == [
        ("dead_letters_not_recorded", "message_too_large"),
        ("dead_letters_recorded", None),
    ]
    assert told.count("juinie_publisher_failures_total", part="dead_letters", reason="RecordRefused") == 1


async def test_partition_that_does_not_answer_is_asked_once_and_holds_up_no_other(letters, recorder_of, now):
    topic = FakeDeadTopic()
    silent = topic.partition_of(letters[0].event.key)
    topic.fails = {-1 - silent: BatchFailed(1)}
    recorder = recorder_of(FakeDeadLetters(letters), topic)
    await recorder.round()
    await recorder.round()
    assert (topic.tried, topic.written) == ([1, 2, 4, 6], [2, 4, 6])
    topic.fails.clear()
    now[0] += PUT_OFF_SECONDS
    await recorder.round()
    assert topic.written == [2, 4, 6, 1, 3, 5]


async def test_kafka_that_is_away_is_waited_for_and_puts_nothing_off(letters, recorder_of):
    topic = FakeDeadTopic(away=True)
    recorder = recorder_of(FakeDeadLetters(letters), topic)
    with pytest.raises(KafkaAway):
        await recorder.round()
    topic.away = False
    await recorder.round()
    assert topic.written == [1, 2, 3, 4, 5, 6]
