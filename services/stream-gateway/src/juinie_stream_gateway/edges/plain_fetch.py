"""Fetches whose bytes are made and read in a few steps. aiokafka takes some for each member of each partition, at every fetch.

That is most of what a fetch costs, and a gateway fetches some hundred times a second, all its partitions each time. All else stays
aiokafka's: which partitions from where, versions, connections, errors, records. Only the version that is spoken with brokers of
today is known here; with an older broker aiokafka's own is used. `tests/contract/test_plain_fetch.py` holds both against aiokafka's.
"""

from collections.abc import Iterator, Sequence
from io import BytesIO
from operator import attrgetter
from struct import Struct
from typing import Any, override

from aiokafka.protocol.fetch import FetchRequest, FetchRequest_v11

from juinie_shared.runtime.kafka_requests import make_requests

_HEADER = Struct(">hhih")
"""Key, version, correlation id; how long the client's id is."""
_HEAD = Struct(">iiiibiii")
"""No replica, wait, least bytes, most bytes, isolation, no session, no epoch; how many topics."""
_ASKED = Struct(">iiqqi")
"""Partition, leader's epoch (any), offset, log start (a follower's), most bytes."""
_ANSWERED = Struct(">ihqqqi")
"""Partition, error, high watermark, last stable offset, log start; how many aborted transactions, or -1."""
_ABORTED = Struct(">qq")
_REPLICA_AND_SIZE = Struct(">ii")
_TOPICS_AT = 4 + 2 + 4
"""Where an answer's topics begin, behind the time to wait, an error and a session."""
_INT, _SHORT = Struct(">i"), Struct(">h")
_NONE = -1
_what_it_asks = attrgetter("_max_wait_ms", "_min_bytes", "_max_bytes", "_isolation_level", "_rack_id")
"""What aiokafka's request keeps for whoever builds it."""

type AnsweredPartition = tuple[int, int, int, int, int, list[tuple[int, int]] | None, int, bytes | None]
"""As in aiokafka's answer of this version."""


def fetch_plainly(consumer: Any) -> None:
    """From now on this consumer's fetches are such. Its own client is told, which nobody else has."""
    make_requests(consumer._client, FetchRequest, PlainFetch)  # noqa: SLF001


class PlainFetch(FetchRequest):
    """The same request, in whichever version the broker speaks."""

    def __init__(self, request: FetchRequest) -> None:
        self._request = request

    @override
    def build(self, request_struct_class: Any) -> Any:
        if request_struct_class is FetchRequest_v11:
            return PlainFetchV11(self._request)
        return self._request.build(request_struct_class)


class PlainFetchAnswer:
    """What aiokafka's fetcher asks of an answer. An error of the whole and the session are of no use to it."""

    API_VERSION = FetchRequest_v11.API_VERSION

    def __init__(self, topics: list[tuple[str, list[AnsweredPartition]]]) -> None:
        self.topics = topics

    @override
    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.topics})"

    @classmethod
    def decode(cls, answer: BytesIO) -> "PlainFetchAnswer":
        """From where its header ends.

        Raises:
            ValueError, struct.error: it is cut off.
        """
        data, at = answer.getvalue(), answer.tell() + _TOPICS_AT
        (count,), at = _INT.unpack_from(data, at), at + _INT.size
        topics: list[tuple[str, list[AnsweredPartition]]] = []
        for _ in range(count):
            topic, at = _topic(data, at)
            topics.append(topic)
        if at > len(data):
            raise ValueError("The answer is cut off.")
        return cls(topics)


class PlainFetchV11(FetchRequest_v11):
    """What goes out."""

    RESPONSE_TYPE: Any = PlainFetchAnswer

    def __init__(self, request: FetchRequest) -> None:
        self._request = request

    @override
    def encode(self) -> bytes:
        wait, least_bytes, most_bytes, isolation, rack_id = _what_it_asks(self._request)
        topics, rack = self._request.topics, rack_id.encode()
        head = _HEAD.pack(_NONE, wait, least_bytes, most_bytes, isolation, 0, _NONE, len(topics))
        return b"".join((head, *_topics(topics), _INT.pack(0), _SHORT.pack(len(rack)), rack))

    @override
    def build_request_header(self, correlation_id: int, client_id: str) -> Any:
        return _Header(correlation_id, client_id.encode())

    @override
    def parse_response_header(self, read_buffer: Any) -> Any:
        return _AnswerHeader(read_buffer.read(_INT.size))

    @override
    def __repr__(self) -> str:
        return f"{type(self).__name__}({_what_it_asks(self._request)}, {self._request.topics})"


class _Header:
    def __init__(self, correlation_id: int, client_id: bytes) -> None:
        self._correlation_id, self._client_id = correlation_id, client_id

    def encode(self) -> bytes:
        key, version = FetchRequest_v11.API_KEY, FetchRequest_v11.API_VERSION
        return _HEADER.pack(key, version, self._correlation_id, len(self._client_id)) + self._client_id


class _AnswerHeader:
    def __init__(self, data: bytes) -> None:
        (self.correlation_id,) = _INT.unpack(data)


def _topics(topics: Sequence[tuple[str, Sequence[tuple[int, int, int]]]]) -> Iterator[bytes]:
    for topic, partitions in topics:
        name = topic.encode()
        yield _SHORT.pack(len(name)) + name + _INT.pack(len(partitions))
        for partition, offset, most_bytes in partitions:
            yield _ASKED.pack(partition, _NONE, offset, _NONE, most_bytes)


def _topic(data: bytes, at: int) -> tuple[tuple[str, list[AnsweredPartition]], int]:
    (length,), at = _SHORT.unpack_from(data, at), at + _SHORT.size
    name, at = data[at : at + length].decode(), at + length
    (count,), at = _INT.unpack_from(data, at), at + _INT.size
    partitions: list[AnsweredPartition] = []
    for _ in range(count):
        partition, at = _partition(data, at)
        partitions.append(partition)
    return (name, partitions), at


def _partition(data: bytes, at: int) -> tuple[AnsweredPartition, int]:
    number, error, high_watermark, stable, log_start, count = _ANSWERED.unpack_from(data, at)
    at += _ANSWERED.size
    aborted = (
        None if count == _NONE else [_ABORTED.unpack_from(data, at + i * _ABORTED.size) for i in range(count)]
    )
    at += max(0, count) * _ABORTED.size
    replica, size = _REPLICA_AND_SIZE.unpack_from(data, at)
    at += _REPLICA_AND_SIZE.size
    records = None if size < 0 else data[at : at + size]
    at += max(0, size)
    return (number, error, high_watermark, stable, log_start, aborted, replica, records), at
