"""A request that is joined once is what aiokafka's own connection writes of it, byte for byte, and takes its size once."""

import asyncio
import gc
import tracemalloc
import weakref
from types import SimpleNamespace

import pytest
from aiokafka.client import AIOKafkaClient
from aiokafka.conn import AIOKafkaConnection
from aiokafka.protocol.metadata import MetadataRequest
from aiokafka.protocol.produce import ProduceRequest
from hypothesis import given
from hypothesis import strategies as st

from juinie_publisher.edges.joined_once import join_once

VERSIONS = [each.API_VERSION for each in ProduceRequest._CLASSES]
BATCHES = st.lists(st.tuples(st.integers(0, 2**31 - 1), st.binary(max_size=200).map(bytearray)), max_size=5)
TOPICS = st.lists(st.tuples(st.text(max_size=20), BATCHES), max_size=4)


class Writer:
    """Where a connection writes to."""

    def __init__(self):
        self.written = []

    def write(self, data):
        self.written.append(data)

    async def drain(self): ...


async def written(request, version, *, joined_once):
    """What aiokafka's client writes to a broker that speaks this version, and the most memory that it took to do so."""
    client, connection, writer = AIOKafkaClient(), AIOKafkaConnection("localhost", 9092), Writer()
    connection._writer, connection._versions = writer, {request.API_KEY: (0, version)}
    client._conns = {(1, 0): connection}

    async def ready(*_, **__):
        return True

    client.ready = ready
    if joined_once:
        join_once(SimpleNamespace(client=client))
    tracemalloc.start()
    try:
        await client.send(1, request, group=0)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    (data,) = writer.written
    assert type(data) is bytes
    return data, peak


def produce(topics):
    """A request that nobody answers, so that a client need not wait."""
    return ProduceRequest(None, 0, 4000, topics)


@pytest.mark.parametrize("version", VERSIONS)
@given(TOPICS)
def test_bytes_are_those_that_aiokafka_writes(version, topics):
    ours, _ = asyncio.run(written(produce(topics), version, joined_once=True))
    theirs, _ = asyncio.run(written(produce(topics), version, joined_once=False))
    assert ours == theirs


async def test_request_takes_its_size_once():
    topics = [("events", [(partition, bytearray(1_000_000)) for partition in range(4)])]
    for joined_once, least, most in ((True, 1, 1.1), (False, 2, 4)):
        data, peak = await written(produce(topics), VERSIONS[-1], joined_once=joined_once)
        assert least <= peak / len(data) <= most


async def test_bytes_are_let_go_with_the_request():
    """Not when the collector comes, which counts objects: a megabyte is as much to it as a number."""

    class Buffer(bytearray):
        """One that can be seen to go."""

    client, structs = AIOKafkaClient(), []

    async def send(_, request, **__):
        structs.append(request.build(ProduceRequest._CLASSES[-1]))

    client.send = send
    join_once(SimpleNamespace(client=client))
    buffer = Buffer(b"x" * 1000)
    seen = weakref.ref(buffer)
    gc.disable()
    try:
        await client.send(1, produce([("events", [(0, buffer)])]))
        del buffer
        assert b"x" * 1000 in b"length" + (b"header" + structs[0].encode())
        assert seen() is not None
        structs.clear()
        assert seen() is None
    finally:
        gc.enable()


async def test_other_requests_go_as_they_are():
    client, sent = AIOKafkaClient(), []

    async def send(node_id, request, **options):
        sent.append((node_id, request, options))
        return "answer"

    client.send = send
    join_once(SimpleNamespace(client=client))
    request = MetadataRequest([])
    assert await client.send(1, request, group=2) == "answer"
    assert sent == [(1, request, {"group": 2})]
