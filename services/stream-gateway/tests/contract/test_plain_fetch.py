"""Plain fetches are aiokafka's to the byte, and their answers what aiokafka reads in them."""

import asyncio
import struct
from io import BytesIO
from typing import Any

import pytest
from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.protocol.fetch import FetchRequest, FetchRequest_v10, FetchRequest_v11, FetchResponse_v11
from hypothesis import given
from hypothesis import strategies as st

from juinie_stream_gateway.edges.plain_fetch import PlainFetch, PlainFetchAnswer, PlainFetchV11, fetch_plainly
from juinie_testkit.kafka import create_topic, producer_of

ints, longs, shorts = (
    st.integers(-(2**31), 2**31 - 1),
    st.integers(-(2**63), 2**63 - 1),
    st.integers(-(2**15), 2**15 - 1),
)
names = st.text(max_size=50)
asked = st.builds(
    FetchRequest,
    ints,
    ints,
    ints,
    st.integers(0, 1),
    st.lists(st.tuples(names, st.lists(st.tuples(ints, longs, ints), max_size=5)), max_size=3),
    names,
)
partitions = st.tuples(
    ints,
    shorts,
    longs,
    longs,
    longs,
    st.none() | st.lists(st.tuples(longs, longs), max_size=3),
    ints,
    st.none() | st.binary(max_size=50),
)
answers = st.lists(st.tuples(names, st.lists(partitions, max_size=4)), max_size=3)


@given(asked, ints, names)
def test_request_is_aiokafkas_to_the_byte(request: FetchRequest, number: int, client_id: str) -> None:
    ours, theirs = (each.prepare({FetchRequest.API_KEY: (0, 17)}) for each in (PlainFetch(request), request))
    assert type(ours) is PlainFetchV11
    assert ours.encode() == theirs.encode()
    assert (
        ours.build_request_header(number, client_id).encode()
        == theirs.build_request_header(number, client_id).encode()
    )
    assert repr(ours)


@given(answers, ints)
def test_answer_is_what_aiokafka_reads(topics: Any, number: int) -> None:
    data = struct.pack(">i", number) + FetchResponse_v11(0, 0, 0, topics).encode()
    ours, theirs = BytesIO(data), BytesIO(data)
    request: Any = PlainFetch(FetchRequest(1, 1, 1, 0, [])).build(FetchRequest_v11)
    assert request.parse_response_header(ours).correlation_id == number
    FetchRequest_v11.parse_response_header(request, theirs)
    read, meant = request.RESPONSE_TYPE.decode(ours), FetchResponse_v11.decode(theirs)
    assert read.API_VERSION == meant.API_VERSION
    assert read.topics == meant.topics


@given(answers.filter(bool), st.data())
def test_answer_that_is_cut_off_is_none(topics: Any, data: st.DataObject) -> None:
    whole = FetchResponse_v11(0, 0, 0, topics).encode()
    with pytest.raises((ValueError, struct.error)):
        PlainFetchAnswer.decode(BytesIO(whole[: data.draw(st.integers(0, len(whole) - 1))]))


def test_an_older_broker_is_asked_as_aiokafka_does() -> None:
    request = FetchRequest(1, 2, 3, 0, [("topic", [(1, 2, 3)])])
    ours, theirs = (each.prepare({FetchRequest.API_KEY: (0, 10)}) for each in (PlainFetch(request), request))
    assert type(ours) is type(theirs) is FetchRequest_v10
    assert ours.encode() == theirs.encode()


async def test_a_broker_answers_them(kafka_bootstrap_servers: str, kafka_topic: str, monkeypatch) -> None:
    """Several partitions, one of which is empty; and what comes is there by such a fetch."""
    answers = list[PlainFetchAnswer]()
    decode = PlainFetchAnswer.decode
    monkeypatch.setattr(PlainFetchAnswer, "decode", lambda data: answers.append(decode(data)) or answers[-1])
    await create_topic(kafka_bootstrap_servers, kafka_topic, partitions=3)
    async with producer_of(kafka_bootstrap_servers) as producer:
        for partition in (0, 2):
            await producer.send_and_wait(kafka_topic, b"%d" % partition, key=b"key", partition=partition)
    consumer: Any = AIOKafkaConsumer(
        bootstrap_servers=kafka_bootstrap_servers, group_id=None, enable_auto_commit=False
    )
    await consumer.start()
    try:
        fetch_plainly(consumer)
        consumer.assign([TopicPartition(kafka_topic, partition) for partition in range(3)])
        await consumer.seek_to_beginning()
        values = list[bytes]()
        async with asyncio.timeout(30):
            while len(values) < 2:
                batches = await consumer.getmany(timeout_ms=5000)
                values += [record.value for batch in batches.values() for record in batch]
        assert sorted(values) == [b"0", b"2"]
    finally:
        await consumer.stop()
    fetched = {
        partition[0] for answer in answers for _, partitions in answer.topics for partition in partitions
    }
    assert fetched == {0, 1, 2}
