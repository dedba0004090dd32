"""What the relay expects of a topic. Kafka and the fake of the unit tests both have to keep it."""

import asyncio
import math
import tracemalloc
from contextlib import asynccontextmanager, suppress
from types import SimpleNamespace

import msgspec
import pytest
from aiokafka import TopicPartition
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType
from aiokafka.errors import InvalidProducerEpoch, OutOfOrderSequenceNumber, UnknownProducerId
from aiokafka.producer.sender import SendProduceReqHandler

from juinie_publisher.core.relay import BatchFailed, RecordRefused
from juinie_publisher.edges.kafka import KafkaTopic
from juinie_publisher.edges.topic_admin import TopicPlan
from juinie_shared.domain.errors import KafkaAway
from juinie_shared.domain.ids import new_run_id
from juinie_testkit.kafka import admin_of, create_topic, delete_topic, read_topic
from juinie_testkit.waits import StillMissing

THIRD = f'"{"x" * 300_000}"'
"""A third of a batch."""


@asynccontextmanager
async def connected(servers, name, partitions=4, created=None):
    topic = KafkaTopic(
        servers, TopicPlan(name, partitions, 1), lambda: created is None or created.append(name)
    )
    try:
        await topic.connect()
        yield topic
    finally:
        await topic.close()


@pytest.fixture(params=["fake", "kafka"])
async def topic(request, fake_topic):
    if request.param == "fake":
        yield fake_topic()
    else:
        servers = request.getfixturevalue("kafka_bootstrap_servers")
        async with connected(servers, request.getfixturevalue("kafka_topic")) as real:
            yield real


async def test_batch_takes_what_fits_and_says_where_the_next_begins(topic, record_maker):
    run = new_run_id()
    records = [record_maker(run, seq, THIRD) for seq in range(1, 8)]
    partition = topic.partition_of(records[0].key)
    ends, start = [], 0
    while start < len(records):
        start = await topic.send(partition, records, start)
        ends.append(start)
    assert ends == [3, 6, 7]


async def test_record_larger_than_a_batch_goes_alone(topic, record_maker):
    run = new_run_id()
    records = [record_maker(run, seq, f'"{"x" * 1_010_000}"') for seq in (1, 2)]
    assert await topic.send(topic.partition_of(records[0].key), records, 0) == 1


async def test_send_takes_the_memory_of_a_batch_and_of_its_request(
    kafka_bootstrap_servers, kafka_topic, record_maker
):
    record = record_maker(new_run_id(), 1, f'"{"x" * 900_000}"').packed()
    async with connected(kafka_bootstrap_servers, kafka_topic) as topic:
        tracemalloc.start()
        try:
            await topic.send(0, [SimpleNamespace(packed=lambda: record)], 0)
            assert tracemalloc.get_traced_memory()[1] < 2.3 * len(record)
        finally:
            tracemalloc.stop()


async def test_run_has_one_partition_and_runs_spread_over_all(topic):
    keys = [str(new_run_id()).encode() for _ in range(200)]
    partitions = [topic.partition_of(key) for key in keys]
    assert partitions == [topic.partition_of(key) for key in keys]
    assert set(partitions) == {0, 1, 2, 3}


async def test_partitions_work_side_by_side(topic, record_maker):
    runs = [new_run_id() for _ in range(20)]
    by_partition = {topic.partition_of(str(run).encode()): record_maker(run, 1) for run in runs}
    ends = await asyncio.gather(
        *(topic.send(partition, [record], 0) for partition, record in by_partition.items())
    )
    assert ends == [1] * len(by_partition)


async def test_partition_is_that_of_kafkas_default_partitioner(kafka_bootstrap_servers, kafka_topic):
    # The Java client: Utils.toPositive(Utils.murmur2(key)) % 12, worked out with kafka-clients.
    async with connected(kafka_bootstrap_servers, kafka_topic, partitions=12) as topic:
        assert [topic.partition_of(key) for key in (b"21", b"foobar", b"a-little-bit-long-string")] == [
            (-973932308 & 0x7FFFFFFF) % 12, (-790332482 & 0x7FFFFFFF) % 12, (-985981536 & 0x7FFFFFFF) % 12,
        ]  # fmt: skip


async def test_missing_topic_is_created_with_the_brokers_time(
    kafka_bootstrap_servers, kafka_topic, record_maker
):
    created = []
    record = record_maker(new_run_id(), 1)
    async with connected(kafka_bootstrap_servers, kafka_topic, 3, created) as topic:
        await topic.send(topic.partition_of(record.key), [record], 0)
    (read,) = await read_topic(kafka_bootstrap_servers, kafka_topic, len)
    assert created == [kafka_topic]
    assert read.timestamp_type == 1


async def test_existing_topic_keeps_its_partitions(kafka_bootstrap_servers, kafka_topic):
    created = []
    await create_topic(kafka_bootstrap_servers, kafka_topic, partitions=2)
    async with connected(kafka_bootstrap_servers, kafka_topic, 12, created) as topic:
        assert {topic.partition_of(str(new_run_id()).encode()) for _ in range(100)} == {0, 1}
    assert created == []


async def test_two_publishers_may_create_the_topic_at_once(kafka_bootstrap_servers, kafka_topic):
    created = []
    async with (
        asyncio.TaskGroup() as tasks,
    ):
        for _ in range(3):
            tasks.create_task(_connect_and_close(kafka_bootstrap_servers, kafka_topic, created))
    assert created == [kafka_topic]


async def _connect_and_close(servers, name, created):
    async with connected(servers, name, 2, created):
        pass


async def test_record_larger_than_the_topic_takes_is_refused_and_costs_no_batch(
    kafka_bootstrap_servers, kafka_topic, record_maker
):
    await create_topic(kafka_bootstrap_servers, kafka_topic, max_message_bytes="1000")
    run = new_run_id()
    records = [record_maker(run, 1), record_maker(run, 2, f'"{"x" * 2000}"'), record_maker(run, 3)]
    async with connected(kafka_bootstrap_servers, kafka_topic) as topic:
        assert await topic.send(0, records, 0) == 1
        with pytest.raises(RecordRefused) as refused:
            await topic.send(0, records, 1)
        assert await topic.send(0, records, 2) == 3
        assert refused.value.reason == "message_too_large"
    await assert_arrived(kafka_bootstrap_servers, kafka_topic, b"1", b"3")


async def test_limit_that_was_raised_is_read_before_a_record_is_refused(
    kafka_bootstrap_servers, kafka_topic, record_maker, monkeypatch
):
    await create_topic(kafka_bootstrap_servers, kafka_topic, max_message_bytes="1000")
    large = [record_maker(new_run_id(), 1, f'"{"x" * 2000}"')]
    monkeypatch.setattr("juinie_publisher.edges.kafka.LIMIT_SECONDS", math.inf)
    async with connected(kafka_bootstrap_servers, kafka_topic) as topic:
        async with admin_of(kafka_bootstrap_servers) as admin:
            raised = ConfigResource(ConfigResourceType.TOPIC, kafka_topic, {"max.message.bytes": "3000"})
            await admin.alter_configs([raised])
        with pytest.raises(RecordRefused):  # by what was read before
            await topic.send(0, large, 0)
        monkeypatch.setattr("juinie_publisher.edges.kafka.LIMIT_SECONDS", 0)
        assert await topic.send(0, large, 0) == 1
    await assert_arrived(kafka_bootstrap_servers, kafka_topic, b"1")


async def test_limit_is_not_asked_for_where_nothing_is_too_large(
    kafka_bootstrap_servers, kafka_topic, record_maker, monkeypatch
):
    async with connected(kafka_bootstrap_servers, kafka_topic) as topic:
        monkeypatch.setattr("juinie_publisher.edges.kafka.LIMIT_SECONDS", 0)
        monkeypatch.setattr("juinie_publisher.edges.kafka.max_message_bytes", None)
        assert await topic.send(0, [record_maker(new_run_id(), 1)], 0) == 1


async def test_partition_that_leaves_the_metadata_as_its_batch_is_sent_is_a_failed_batch(
    kafka_bootstrap_servers, kafka_topic, record_maker, monkeypatch
):
    async with connected(kafka_bootstrap_servers, kafka_topic) as topic:
        monkeypatch.setattr(topic, "_partitions", lambda: [0])
        monkeypatch.setattr(topic._producer.client.cluster, "partitions_for_topic", lambda _name: None)
        with pytest.raises(BatchFailed):
            await topic.send(0, [record_maker(new_run_id(), 1)], 0)


async def test_cluster_without_controller_is_kafka_away(kafka_bootstrap_servers, kafka_topic, monkeypatch):
    monkeypatch.setattr("aiokafka.cluster.ClusterMetadata.__setattr__", all_but_the_controller)
    with pytest.raises(KafkaAway):
        async with connected(kafka_bootstrap_servers, kafka_topic):
            pass


def all_but_the_controller(cluster, name, value):
    object.__setattr__(cluster, name, None if name == "controller" else value)


@pytest.mark.parametrize("error", [TypeError, AttributeError, AssertionError])
async def test_fault_of_ours_is_not_taken_for_an_absence_of_kafka(
    kafka_bootstrap_servers, kafka_topic, monkeypatch, error
):
    async def faulty(_admin, _plan):
        raise error

    monkeypatch.setattr("juinie_publisher.edges.kafka.ensure_topic", faulty)
    with pytest.raises(error):
        async with connected(kafka_bootstrap_servers, kafka_topic):
            pass


@pytest.fixture
async def small_topic(kafka_bootstrap_servers, kafka_topic):
    """Takes batches of 3,000 bytes."""
    await create_topic(kafka_bootstrap_servers, kafka_topic, max_message_bytes="3000")
    return kafka_topic


@pytest.mark.usefixtures("unreadable_limits")
async def test_where_the_limit_cannot_be_read_batches_are_halved_until_the_large_record_is_alone(
    kafka_bootstrap_servers, small_topic, record_maker
):
    run = new_run_id()
    records = [record_maker(run, seq, f'"{"x" * 5000}"' if seq == 6 else "null") for seq in range(1, 9)]
    refusals, sent, parked = 0, 0, []
    async with connected(kafka_bootstrap_servers, small_topic) as topic:
        while sent < len(records):
            await topic.connect()
            try:
                sent = await topic.send(0, records, sent)
            except BatchFailed:
                refusals += 1
            except RecordRefused:
                parked.append(sent + 1)
                sent += 1
    assert parked == [6]
    assert refusals <= 4
    await assert_arrived(kafka_bootstrap_servers, small_topic, *(b"%d" % n for n in (1, 2, 3, 4, 5, 7, 8)))


@pytest.mark.usefixtures("unreadable_limits")
async def test_small_records_go_together_again_behind_large_ones_that_a_broker_would_not_take_together(
    kafka_bootstrap_servers, small_topic, record_maker
):
    """By an unknown limit of bytes, and not one by one for good."""
    run = new_run_id()
    records = [record_maker(run, seq, f'"{"x" * 1600}"' if seq < 3 else "null") for seq in range(1, 103)]
    batches, sent = 0, 0
    async with connected(kafka_bootstrap_servers, small_topic) as topic:
        while sent < len(records):
            await topic.connect()
            with suppress(BatchFailed):
                sent = await topic.send(0, records, sent)
            batches += 1
    assert batches < 30
    await assert_arrived(kafka_bootstrap_servers, small_topic, *(b"%d" % n for n in range(1, 103)))


async def test_record_that_cannot_be_encoded_is_refused_alone(
    kafka_bootstrap_servers, kafka_topic, record_maker
):
    run = new_run_id()
    bad = msgspec.structs.replace(record_maker(run, 2), type="\ud800")
    records = [record_maker(run, 1), bad, record_maker(run, 3)]
    async with connected(kafka_bootstrap_servers, kafka_topic) as topic:
        assert await topic.send(0, records, 0) == 1
        with pytest.raises(RecordRefused) as refused:
            await topic.send(0, records, 1)
        assert await topic.send(0, records, 2) == 3
    assert refused.value.reason == "not_encodable"


async def assert_arrived(servers, name, *seqs):
    records = await read_topic(servers, name, lambda read: len(read) >= len(seqs))
    assert [dict(record.headers)["ce_id"].rpartition(b":")[2] for record in records] == list(seqs)


async def test_producer_that_a_broker_takes_nothing_of_any_more_is_replaced(
    kafka_bootstrap_servers, kafka_topic, record_maker
):
    """A hole in its sequence numbers, as batches leave it that nobody knows the end of: all that it sends is refused from then on."""
    run = new_run_id()
    async with connected(kafka_bootstrap_servers, kafka_topic, 1) as topic:
        await topic.send(0, [record_maker(run, 1)], 0)
        numbers = topic._producer._txn_manager
        numbers.increment_sequence_number(TopicPartition(kafka_topic, 0), 5)
        with pytest.raises(BatchFailed) as failed:
            await topic.send(0, [record_maker(run, 2)], 0)
        assert isinstance(failed.value.__cause__, OutOfOrderSequenceNumber)
        await topic.connect()
        await topic.send(0, [record_maker(run, 2)], 0)
    records = await read_topic(kafka_bootstrap_servers, kafka_topic, lambda records: len(records) >= 2)
    assert [dict(record.headers)["ce_id"][-1:] for record in records] == [b"1", b"2"]


@pytest.mark.parametrize(
    "error",
    [OutOfOrderSequenceNumber, InvalidProducerEpoch, UnknownProducerId],
    ids=lambda error: error.__name__,
)
async def test_each_error_that_is_fatal_to_a_producer_has_it_replaced(
    kafka_bootstrap_servers, kafka_topic, record_maker, monkeypatch, error
):
    """Answered in the broker's name."""
    answer = SendProduceReqHandler.handle_response

    def refuse(self, response):
        topics = [
            (name, [(number, error.errno, *rest) for number, _, *rest in partitions])
            for name, partitions in response.topics
        ]
        answer(self, SimpleNamespace(API_VERSION=response.API_VERSION, topics=topics))

    async with connected(kafka_bootstrap_servers, kafka_topic, 1) as topic:
        fatally_ill = topic._producer
        with monkeypatch.context() as patched:
            patched.setattr(SendProduceReqHandler, "handle_response", refuse)
            with pytest.raises(BatchFailed):
                await topic.send(0, [record_maker(new_run_id(), 1)], 0)
        await topic.connect()
        assert topic._producer is not fatally_ill
        assert await topic.send(0, [record_maker(new_run_id(), 1)], 0) == 1


async def test_deleted_topic_is_created_again(kafka_bootstrap_servers, kafka_topic, record_maker):
    run = new_run_id()
    async with connected(kafka_bootstrap_servers, kafka_topic, 1) as topic:
        await topic.send(0, [record_maker(run, 1)], 0)
        await delete_topic(kafka_bootstrap_servers, kafka_topic)
        async with asyncio.timeout(60):
            records = []
            while not records:  # a topic that is being deleted may still take a record, and lose it
                if await _sent(topic, [record_maker(run, 2)]):
                    records = await _read_soon(kafka_bootstrap_servers, kafka_topic)
    assert {dict(record.headers)["ce_id"][-1:] for record in records} == {b"2"}


async def _read_soon(servers, topic):
    try:
        return await read_topic(servers, topic, len, timeout_seconds=3)
    except StillMissing:
        return []


async def _sent(topic, records):
    try:
        await topic.connect()
        await topic.send(topic.partition_of(records[0].key), records, 0)
    except KafkaAway:
        return False
    return True


async def test_no_broker_at_all_is_kafka_away(kafka_topic, unused_tcp_port):
    with pytest.raises(KafkaAway):
        async with connected(f"127.0.0.1:{unused_tcp_port}", kafka_topic):
            pass


async def test_reachable_only_while_a_broker_answers(kafka_bootstrap_servers, kafka_topic):
    topic = KafkaTopic(kafka_bootstrap_servers, TopicPlan(kafka_topic, 1, 1), lambda: None)
    assert not await topic.is_reachable(1)
    await topic.connect()
    assert await topic.is_reachable(5)
    await topic.close()
    assert not await topic.is_reachable(1)
