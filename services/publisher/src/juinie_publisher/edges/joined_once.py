"""A produce request whose bytes are joined once. aiokafka joins the same bytes anew at each level of a request: eight times.

A full request of ours has a megabyte and more, for which the kernel gives pages and takes them back, each time. All else
stays aiokafka's: leaders, versions, sequence numbers, retries, answers. What its connection does with the bytes of a request is to
put a header before them, ask how long that is, and put the length before that, so it is given parts that know just this.
"""

from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any, override

from aiokafka.protocol.produce import ProduceRequest
from aiokafka.protocol.types import Array, Bytes, Int32, Schema

from juinie_shared.runtime.kafka_requests import make_requests


def join_once(producer: Any) -> None:
    """From now on what this producer sends is joined once."""
    make_requests(producer.client, ProduceRequest, _JoinedOnce)


class _JoinedOnce(ProduceRequest):
    """The same request, in whichever version the broker speaks."""

    def __init__(self, request: ProduceRequest) -> None:
        self._request = request

    @property
    @override
    def required_acks(self) -> int:
        return self._request.required_acks

    @override
    def build(self, request_struct_class: Any) -> Any:
        built: Any = self._request.build(request_struct_class)
        schema: Schema = built.SCHEMA
        built.encode = partial(_Body, schema, [built.get_item(name) for name in schema.names])
        return built


class _Body:
    """What comes behind a request's header. It knows the values and not what is built of them, which knows it: in a circle, a megabyte
    would stay until the collector comes, which counts objects and not bytes."""

    def __init__(self, schema: Schema, values: Sequence[object]) -> None:
        self._schema, self._values = schema, values

    def __radd__(self, header: bytes) -> "_Message":
        return _Message([header, *_parts(self._schema, self._values)])


class _Message:
    """What comes behind a request's length."""

    def __init__(self, parts: Sequence[bytes]) -> None:
        self._parts = parts

    def __len__(self) -> int:
        return sum(map(len, self._parts))

    def __radd__(self, length: bytes) -> bytes:
        return b"".join((length, *self._parts))


def _parts(field: Any, value: Any) -> Iterator[bytes]:
    """What the field's own `encode` gives, before it is joined."""
    if isinstance(field, Schema):
        for each, item in zip(field.fields, value, strict=True):
            yield from _parts(each, item)
    elif isinstance(field, Array):
        yield Int32.encode(len(value))
        for item in value:
            yield from _parts(field.array_of, item)
    elif field is Bytes:
        yield Int32.encode(len(value))
        yield value
    else:
        yield field.encode(value)
