"""The publisher's way to a record: of an event whose JSON is as the database renders it (`db/event_json.py`).

Most bytes of a record are the same in all records of its run, and are made once a run. What comes out is what
`RunEventRecord.packed` gives for the record that says the same; a test compares the two.
"""

from collections.abc import Iterable
from typing import Self
from uuid import UUID

import msgspec

from juinie_shared.contracts.record import Headers, RunEventRecord
from juinie_shared.contracts.record_bytes import VARINTS, VARINTS_KNOWN, sized, varint
from juinie_shared.domain.ids import RunId, Seq, TenantId

_SEQ_AT = len('{"seq":')
_TYPE_AFTER = len(',"type":"')
_TIME_AFTER = len('","time":"')
_ID_HEAD = len(f"{RunId(UUID(int=0))}:") - _SEQ_AT
"""How much longer an event's id is than where its seq ends in the JSON."""
_UNTRACED, _TRACED = varint(7), varint(8)
"""How many headers there are."""
_TRACEPARENT = sized(b"traceparent")


class RunBytes(msgspec.Struct, frozen=True, gc=False):
    """What all records of a run have in common. `form`: their bytes, with `%b` for what is another in each."""

    run_id: RunId
    tenant_id: TenantId
    key: bytes
    form: bytes

    @classmethod
    def of(cls, run_id: RunId, tenant_id: TenantId) -> Self:
        any_record = RunEventRecord(run_id, tenant_id, Seq(0), "", "", b"", None)
        return cls(run_id, tenant_id, any_record.key, b"".join(_form(any_record.key, any_record.headers())))


class RenderedRecord(msgspec.Struct, frozen=True, gc=False):
    """The record of an event whose JSON is as the database renders it (`db/event_json.py`).

    The bytes are those of the `RunEventRecord` that says the same, and are made when they are asked for.
    """

    run: RunBytes
    event_json: str
    traceparent: str | None

    @property
    def run_id(self) -> RunId:
        return self.run.run_id

    @property
    def seq(self) -> Seq:
        return Seq(int(self.event_json[_SEQ_AT : self.event_json.index(",")]))

    def packed(self) -> bytes:
        """Raises UnicodeError: what can be no text."""
        value = self.event_json.encode()
        seq_end = value.index(b",", _SEQ_AT)
        type_at = seq_end + _TYPE_AFTER
        type_end = value.index(b'"', type_at)
        time_at = type_end + _TIME_AFTER
        time_end = value.index(b'"', time_at)
        seq, event_type, time = value[_SEQ_AT:seq_end], value[type_at:type_end], value[time_at:time_end]
        traceparent, size = self.traceparent, len(value)
        return self.run.form % (
            VARINTS[size] if size < VARINTS_KNOWN else varint(size), value,
            _TRACED if traceparent else _UNTRACED,
            VARINTS[_ID_HEAD + seq_end], seq,
            VARINTS[type_end - type_at], event_type,
            VARINTS[time_end - time_at], time,
            _TRACEPARENT + sized(traceparent.encode()) if traceparent else b"",
        )  # fmt: skip


def _form(key: bytes, headers: Headers) -> Iterable[bytes]:
    differ = {"ce_id": b"%b" + key + b":%b", "ce_type": b"%b%b", "ce_time": b"%b%b"}
    yield sized(key) + b"%b%b" + b"%b"  # the value, and how many headers
    for name, text in headers:
        yield sized(name.encode()) + differ.get(name, sized(text))
    yield b"%b"
