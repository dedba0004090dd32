"""The Kafka record of one run event: CloudEvents 1.0, binary mode (CloudEvents Kafka binding §3.2).

The value is the event's JSON exactly as SSE carries it after `data: `. The publisher writes these records, the
gateway and anyone else reads them; `juinie_testkit/golden/` holds their bytes.
"""

import re
from dataclasses import dataclass
from uuid import UUID

import msgspec

from juinie_shared.domain.errors import BadRecord
from juinie_shared.domain.events import is_event_type
from juinie_shared.domain.ids import RunId, Seq, TenantId, parse_run_id

Headers = list[tuple[str, bytes]]

_SOURCE = "/juinie/tenants/"
_OURS = frozenset(
    {
        "ce_specversion",
        "ce_id",
        "ce_source",
        "ce_type",
        "ce_subject",
        "ce_time",
        "content-type",
        "traceparent",
    }
)
_CONSTANT = ("1.0", "application/json")
_TIME = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}\.[0-9]{6}Z")
_TRACEPARENT = re.compile(r"[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}")
_NO_TRACE = f"00-{'0' * 32}-{'0' * 16}-00"


@dataclass(frozen=True, slots=True)
class RunEventRecord:
    """One run event on its way through Kafka. `value` is the event's JSON (one line); `traceparent` is W3C's."""

    run_id: RunId
    tenant_id: TenantId
    seq: Seq
    type: str
    time: str
    value: bytes
    traceparent: str | None

    @property
    def key(self) -> bytes:
        """The record key: every event of a run goes to one partition."""
        return str(self.run_id).encode()

    def headers(self) -> Headers:
        run_id = str(self.run_id)
        headers = [
            ("ce_specversion", b"1.0"),
            ("ce_id", f"{run_id}:{self.seq}".encode()),
            ("ce_source", f"{_SOURCE}{self.tenant_id}".encode()),
            ("ce_type", self.type.encode()),
            ("ce_subject", run_id.encode()),
            ("ce_time", self.time.encode()),
            ("content-type", b"application/json"),
        ]
        if self.traceparent:
            headers.append(("traceparent", self.traceparent.encode()))
        return headers


def event_json_head(seq: int, event_type: str) -> bytes:
    """How the JSON of this event begins. What Kafka says is held against it before a watcher sees a byte."""
    return f'{{"seq":{seq},"type":"{event_type}","time":"'.encode()


class _Value(msgspec.Struct, forbid_unknown_fields=True):
    """The members of an event's JSON, the data only looked through: numbers may be larger than any float."""

    seq: int
    type: str
    time: str
    data: msgspec.Raw


_value = msgspec.json.Decoder(_Value)


def read_record(
    key: bytes | None, value: bytes | None, headers: Headers | tuple[tuple[str, bytes], ...]
) -> RunEventRecord:
    """The run event that a Kafka record carries.

    Checks that key, headers and value speak of the same run event, each as `RunEventRecord` writes it. Headers that it
    does not know are ignored, so that a newer publisher may add some.

    Raises:
        BadRecord: anything else that may lie on a topic. The message never holds the record's bytes.
    """
    if key is None or value is None:
        raise BadRecord
    try:
        named = _known_headers(headers)
        run_text, _, seq_text = named["ce_id"].rpartition(":")
        run_id, seq = parse_run_id(run_text), int(seq_text)
        if run_id is None or key != run_text.encode() or named["ce_subject"] != run_text:
            raise BadRecord
        _check_value(value, seq, named["ce_type"], named["ce_time"])
        tenant_id = TenantId(UUID(named["ce_source"].removeprefix(_SOURCE)))
    except (
        AttributeError,
        KeyError,
        ValueError,
        RecursionError,
    ) as error:  # null headers; bad JSON and UTF-8
        raise BadRecord from error
    return RunEventRecord(
        run_id, tenant_id, Seq(seq), named["ce_type"], named["ce_time"], value, named.get("traceparent")
    )


def _known_headers(headers: Headers | tuple[tuple[str, bytes], ...]) -> dict[str, str]:
    """The headers of ours, each once, those of one form in that form."""
    known = [(name, text.decode("ascii")) for name, text in headers if name in _OURS]
    named = dict(known)
    if len(named) != len(known) or (named["ce_specversion"], named["content-type"]) != _CONSTANT:
        raise BadRecord
    if not _TIME.fullmatch(named["ce_time"]) or not _TRACEPARENT.fullmatch(
        named.get("traceparent", _NO_TRACE)
    ):
        raise BadRecord
    return named


def _check_value(value: bytes, seq: int, event_type: str, time: str) -> None:
    """The event's JSON as the database renders it: one line, its members in order, and these values."""
    head = b'%b%b","data":' % (event_json_head(seq, event_type), time.encode())
    if seq < 1 or not is_event_type(event_type) or not value.startswith(head):
        raise BadRecord
    if b"\n" in value or b"\r" in value:
        raise BadRecord
    value.decode()
    read = _value.decode(value)
    if (read.seq, read.type, read.time) != (seq, event_type, time):  # named a second time
        raise BadRecord
