"""The Kafka record of one run event: CloudEvents 1.0, binary mode (CloudEvents Kafka binding §3.2).

The value is the event's JSON exactly as SSE carries it after `data: `. The publisher writes these records, the
gateway and anyone else reads them; `juinie_testkit/golden/` holds their bytes.
"""

import re
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import cast
from uuid import UUID

import msgspec

from juinie_shared.contracts.record_bytes import packed
from juinie_shared.domain.errors import BadRecord
from juinie_shared.domain.events import LONGEST_TYPE, is_event_type
from juinie_shared.domain.ids import RunId, Seq, TenantId, parse_run_id

type Headers = list[tuple[str, bytes]]
type ReadHeaders = Sequence[tuple[str, bytes | None]]
"""As they come from Kafka, where a header may have no value."""
type Said = tuple[TenantId, Seq, str, bytes, str | None]
"""Of a run event: tenant, seq, type, time as its headers have it, and trace."""

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
_VERSION, _MEDIA_TYPE = ("ce_specversion", b"1.0"), ("content-type", b"application/json")
_NAMES = "ce_id", "ce_type", "ce_time"
_UNTRACED = 7
"""So many headers has a record whose append was not traced; one more has another."""
_TRACED = _UNTRACED + 1
_TIME = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}\.[0-9]{6}Z")
_DIGITS_TO_0, _TIME_IN_0 = bytes.maketrans(b"123456789", b"000000000"), b"0000-00-00T00:00:00.000000Z"
_ID_HEAD = len("01930b7e-4c00-7a11-8b22-c3d4e5f60718:")
_PLAIN_SEQ, _ZERO = 18, ord("0")
"""A seq of no more digits, of which this is not the first, is as JSON has it."""
_LF, _CR = b"\n\r"
"""As numbers: to look for one of those in bytes takes a tenth of what it takes to look for a byte string."""
_TRACEPARENT = re.compile(r"[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}")
_NO_TRACE = f"00-{'0' * 32}-{'0' * 16}-00"
_HEX_TO_0, _TRACE_IN_0 = bytes.maketrans(b"123456789abcdef", b"0" * 15), _NO_TRACE.encode()


class RunEventRecord(msgspec.Struct, frozen=True, gc=False):
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
        run_id = self.key
        headers = [
            _VERSION,
            ("ce_id", b"%b:%d" % (run_id, self.seq)),
            ("ce_source", f"{_SOURCE}{self.tenant_id}".encode()),
            ("ce_type", self.type.encode()),
            ("ce_subject", run_id),
            ("ce_time", self.time.encode()),
            _MEDIA_TYPE,
        ]
        if self.traceparent:
            headers.append(("traceparent", self.traceparent.encode()))
        return headers

    def packed(self) -> bytes:
        """As it lies in a batch, from its key on."""
        return packed(self.key, self.value, self.headers())


def event_json_head(seq: int, event_type: str) -> bytes:
    """How the JSON of this event begins. What Kafka says is held against it before a watcher sees a byte."""
    return f'{{"seq":{seq},"type":"{event_type}","time":"'.encode()


class _Value(msgspec.Struct, forbid_unknown_fields=True, gc=False):
    """The members of an event's JSON, the data only looked through: numbers may be larger than any float."""

    seq: int
    type: str
    time: str
    data: msgspec.Raw


_value = msgspec.json.Decoder(_Value)
_any_json = msgspec.json.Decoder(msgspec.Raw)
"""Looks it through, and leaves out the white space around it."""
_seq_of = cast("Callable[[bytes], Seq]", int)


class RunRecords:
    """Reads the records of one run: accepts what `read_record` does, most of it at a glance, as it is what we would write.

    Their headers say how their value has to begin; what else may be right is left to `read_record`.
    """

    __slots__ = ("_id_head", "_key", "_same", "_tenant_id")

    def __init__(self, run_id: RunId, tenant_id: TenantId) -> None:
        self._tenant_id = tenant_id
        self._key = str(run_id).encode()
        self._id_head = self._key + b":"
        source = ("ce_source", f"{_SOURCE}{tenant_id}".encode())
        self._same = _VERSION, source, ("ce_subject", self._key), _MEDIA_TYPE
        """What all of them have."""

    def read(self, value: bytes, headers: ReadHeaders) -> Said:
        """What a record with this run's key says. It may say another tenant.

        Raises:
            BadRecord: as `read_record`.
        """
        count = len(headers)
        if _UNTRACED <= count <= _TRACED:
            (
                version,
                (id_name, event_id),
                source,
                (type_name, event_type),
                subject,
                (time_name, time),
                media,
            ) = headers if count == _UNTRACED else headers[:_UNTRACED]
            traceparent = _traceparent_in(headers[_UNTRACED]) if count == _TRACED else None
            if (
                (version, source, subject, media) == self._same
                and (id_name, type_name, time_name) == _NAMES
                and (event_id and event_type and time)
                and event_id.startswith(self._id_head)
                and len(event_type) <= LONGEST_TYPE
                and (known := _known_type(event_type)) is not None
                and (seq := event_id[_ID_HEAD:]).isdigit()
                and (len(seq) <= _PLAIN_SEQ and seq[0] != _ZERO)
                and time.translate(_DIGITS_TO_0) == _TIME_IN_0
                and value.startswith(head := known.head_of % (seq, time))
                and _is_all_data(value, len(head))
                and (count == _UNTRACED or traceparent is not None)
            ):
                return self._tenant_id, _seq_of(seq), known.type, time, traceparent
        record = read_record(self._key, value, headers)
        return record.tenant_id, record.seq, record.type, record.time.encode(), record.traceparent


def read_record(key: bytes | None, value: bytes | None, headers: ReadHeaders) -> RunEventRecord:
    """The run event that a Kafka record carries.

    Checks that key, headers and value speak of the same run event, each as `RunEventRecord` writes it. Headers that it
    does not know are ignored, so that a newer publisher may add some; so are those without a value.

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
        event = _read_value(value)
        if (event.seq, event.type, event.time) != (seq, named["ce_type"], named["ce_time"]):
            raise BadRecord
        tenant_id = TenantId(UUID(named["ce_source"].removeprefix(_SOURCE)))
    except (KeyError, ValueError) as error:
        raise BadRecord from error
    return RunEventRecord(
        run_id, tenant_id, Seq(seq), event.type, event.time, value, named.get("traceparent")
    )


def _known_headers(headers: ReadHeaders) -> dict[str, str]:
    """The headers of ours, each once, those of one form in that form."""
    known = [(name, text.decode("ascii")) for name, text in headers if name in _OURS and text is not None]
    named = dict(known)
    if len(named) != len(known) or _VERSION not in headers or _MEDIA_TYPE not in headers:
        raise BadRecord
    if not _TRACEPARENT.fullmatch(named.get("traceparent", _NO_TRACE)):
        raise BadRecord
    return named


def _read_value(value: bytes | None) -> _Value:
    """The event's JSON, when it is as the database renders it: one line, its members in order, each once.

    Raises:
        BadRecord: it is not.
    """
    if value is None or _LF in value or _CR in value:
        raise BadRecord
    try:
        if not value.isascii():
            value.decode()
        event = _value.decode(value)
    except (ValueError, RecursionError) as error:
        raise BadRecord from error
    if event.seq < 1 or not _TIME.fullmatch(event.time):
        raise BadRecord
    if not is_event_type(event.type):
        raise BadRecord
    head = event_json_head(event.seq, event.type) + event.time.encode() + b'","data":'
    if not value.startswith(head) or len(value) != len(head) + len(event.data) + len(b"}"):
        raise BadRecord
    return event


class _KnownType(msgspec.Struct, frozen=True, gc=False):
    """`head_of` takes seq and time, and gives how the value begins."""

    type: str
    head_of: bytes


@lru_cache(maxsize=1024)
def _known_type(text: bytes) -> _KnownType | None:
    """None for what can be no type. Only what is short enough for one is asked about, and remembered."""
    event_type = text.decode("ascii", "replace")
    if not is_event_type(event_type):
        return None
    return _KnownType(event_type, b'{"seq":%%b,"type":"%b","time":"%%b","data":' % text)


def _is_all_data(value: bytes, begin: int) -> bool:
    """Whether what follows is one JSON value and a brace, so that each member is there once; on one line, in UTF-8."""
    if _LF in value or _CR in value:
        return False
    data = value[begin:-1]
    try:
        if not value.isascii():
            value.decode()
        return len(_any_json.decode(data)) == len(data) and value.endswith(b"}")
    except (ValueError, RecursionError):
        return False


def _traceparent_in(header: tuple[str, bytes | None]) -> str | None:
    """The trace that a header names; None when it is another header, or not well made."""
    name, text = header
    if name != "traceparent" or text is None or text.translate(_HEX_TO_0) != _TRACE_IN_0:
        return None
    return text.decode()
