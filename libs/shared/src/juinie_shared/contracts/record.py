"""The Kafka record of one run event: CloudEvents 1.0, binary mode (CloudEvents Kafka binding §3.2).

The value is the event's JSON exactly as SSE carries it after `data: `. The publisher writes these records, the
gateway and anyone else reads them; `juinie_testkit/golden/` holds their bytes.
"""

from dataclasses import dataclass
from uuid import UUID

import msgspec

from juinie_shared.domain.errors import BadRecord
from juinie_shared.domain.events import is_event_type
from juinie_shared.domain.ids import RunId, Seq, TenantId, parse_run_id

Headers = list[tuple[str, bytes]]

_SOURCE = "/juinie/tenants/"


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


def read_record(
    key: bytes | None, value: bytes | None, headers: Headers | tuple[tuple[str, bytes], ...]
) -> RunEventRecord:
    """The run event that a Kafka record carries.

    Checks that key, headers and value speak of the same run event, and that the value is one line of JSON.
    Headers it does not know are ignored, so that a newer publisher may add some.

    Raises:
        BadRecord: anything else that may lie on a topic. The message never holds the record's bytes.
    """
    if key is None or value is None:
        raise BadRecord
    named = dict(headers)
    try:
        run_text, _, seq_text = named["ce_id"].decode("ascii").rpartition(":")
        event_type = named["ce_type"].decode("ascii")
        time = named["ce_time"].decode("ascii")
        source = named["ce_source"].decode("ascii")
        run_id = parse_run_id(run_text)
        seq = int(seq_text)
        if run_id is None or key != run_text.encode() or seq < 1 or not is_event_type(event_type):
            raise BadRecord
        if not value.startswith(event_json_head(seq, event_type)) or b"\n" in value or b"\r" in value:
            raise BadRecord
        value.decode()
        msgspec.json.decode(
            value, type=msgspec.Raw
        )  # looked through, not built: numbers may be larger than any float
        tenant_id = TenantId(UUID(source.removeprefix(_SOURCE)))
        traceparent = named["traceparent"].decode("ascii") if "traceparent" in named else None
    except (
        AttributeError,
        KeyError,
        ValueError,
        RecursionError,
    ) as error:  # null headers; bad JSON and UTF-8
        raise BadRecord from error
    return RunEventRecord(run_id, tenant_id, Seq(seq), event_type, time, value, traceparent)
