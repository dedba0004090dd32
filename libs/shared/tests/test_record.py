"""The Kafka record is bytes that publisher and gateway agree on. The expectations were written by hand."""

import json
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given, reject
from hypothesis import strategies as st

from juinie_shared.contracts.record import RunEventRecord, RunRecords, event_json_head, read_record
from juinie_shared.contracts.rendered_record import RenderedRecord, RunBytes
from juinie_shared.domain.errors import BadRecord
from juinie_shared.domain.ids import RunId, Seq, TenantId
from juinie_shared.domain.times import format_time
from juinie_testkit.golden import GoldenRecord, golden_record, golden_records

RUN = RunId(UUID("01930b7e-4c00-7a11-8b22-c3d4e5f60718"))
TENANT = TenantId(UUID("01930b7e-0000-7000-8000-00000000000a"))

MEANT = {
    "token": RunEventRecord(
        RUN, TENANT, Seq(43), "TEXT_MESSAGE_CONTENT", "2026-11-23T12:00:00.123456Z",
        b'{"seq":43,"type":"TEXT_MESSAGE_CONTENT","time":"2026-11-23T12:00:00.123456Z","data":{"delta":"Hel"}}',
        "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
    ),
    "untraced_end": RunEventRecord(
        RUN, TENANT, Seq(140), "run.finished", "2026-11-23T12:00:01.000000Z",
        b'{"seq":140,"type":"run.finished","time":"2026-11-23T12:00:01.000000Z",'
        b'"data":{"status":"success","output":null,"error":null}}',
        None,
    ),
    "verbatim": RunEventRecord(
        RUN, TENANT, Seq(2), "a/b.c-d_E9", "0001-01-01T00:00:00.000000Z",
        r'{"seq":2,"type":"a/b.c-d_E9","time":"0001-01-01T00:00:00.000000Z","data":{"z":1.0,"a":9007199254740993,'
        r'"big":1e400,"nul":"\u0000","é":"\u00e9","wide":"日本 🜁","line":"a\nb","":[]}}'.encode(),
        "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00",
    ),
}  # fmt: skip


@pytest.mark.parametrize("golden", golden_records(), ids=lambda golden: golden.name)
def test_writing_gives_the_golden_bytes(golden: GoldenRecord):
    record = MEANT[golden.name]
    assert (record.key, tuple(record.headers()), record.value) == (golden.key, golden.headers, golden.value)


@pytest.mark.parametrize("golden", golden_records(), ids=lambda golden: golden.name)
def test_reading_the_golden_bytes_gives_what_was_meant(golden: GoldenRecord):
    assert read_record(golden.key, golden.value, golden.headers) == MEANT[golden.name]


@pytest.mark.parametrize("golden", golden_records(), ids=lambda golden: golden.name)
def test_json_of_an_event_names_what_its_record_says(golden: GoldenRecord):
    meant = MEANT[golden.name]
    rendered = RenderedRecord(RunBytes.of(RUN, TENANT), golden.value.decode(), meant.traceparent)
    assert (rendered.run_id, rendered.seq, rendered.packed()) == (meant.run_id, meant.seq, meant.packed())


@given(
    seq=st.integers(1, 2**63 - 1),
    event_type=st.from_regex(r"[A-Za-z0-9._/-]{1,128}", fullmatch=True),
    moment=st.datetimes(timezones=st.just(UTC)),
    data=st.recursive(
        st.none() | st.integers() | st.text(),
        lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    ),
    traceparent=st.none()
    | st.from_regex(r"[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}", fullmatch=True),
)
def test_what_is_written_from_an_events_json_is_read_as_it(
    seq: int, event_type: str, moment: datetime, data: object, traceparent: str | None
):
    time, text = format_time(moment), json.dumps(data, ensure_ascii=False)
    event = f'{{"seq":{seq},"type":"{event_type}","time":"{time}","data":{text}}}'
    try:
        event.encode()
    except UnicodeEncodeError:
        reject()
    record = RunEventRecord(RUN, TENANT, Seq(seq), event_type, time, event.encode(), traceparent)
    rendered = RenderedRecord(RunBytes.of(RUN, TENANT), event, traceparent)
    assert (rendered.seq, rendered.packed()) == (seq, record.packed())
    assert read_record(record.key, record.value, record.headers()) == record


def test_headers_of_a_newer_publisher_are_passed_over():
    golden = golden_record("token")
    assert read_record(golden.key, golden.value, (*golden.headers, ("ce_new", b"\xff"))) == MEANT["token"]


def test_head_of_the_json_is_what_every_value_begins_with():
    for record in MEANT.values():
        assert record.value.startswith(event_json_head(record.seq, record.type))


def _with_header(name: str, value: bytes | None) -> GoldenRecord:
    golden = golden_record("token")
    headers = [(header, value if header == name else text) for header, text in golden.headers]
    return replace(golden, headers=tuple((header, text) for header, text in headers if text is not None))


def _with_null(name: str) -> GoldenRecord:
    golden = golden_record("token")
    null: Any = None  # Kafka allows it, whatever our type says
    return replace(
        golden, headers=tuple((header, null if header == name else text) for header, text in golden.headers)
    )


def _with_value(old: bytes, new: bytes) -> GoldenRecord:
    golden = golden_record("token")
    assert old in golden.value
    return replace(golden, value=golden.value.replace(old, new))


RUBBISH = {
    "no key": replace(golden_record("token"), key=None),
    "no value": replace(golden_record("token"), value=None),
    "no headers": replace(golden_record("token"), headers=()),
    "empty value": replace(golden_record("token"), value=b""),
    "key of another run": replace(golden_record("token"), key=b"01930b7e-4c00-7a11-8b22-000000000000"),
    "id of another run": _with_header("ce_id", b"01930b7e-4c00-7a11-8b22-000000000000:43"),
    "id without a seq": _with_header("ce_id", b"01930b7e-4c00-7a11-8b22-c3d4e5f60718"),
    "seq of zero": _with_header("ce_id", b"01930b7e-4c00-7a11-8b22-c3d4e5f60718:0"),
    "negative seq": _with_header("ce_id", b"01930b7e-4c00-7a11-8b22-c3d4e5f60718:-43"),
    "another seq than the value": _with_header("ce_id", b"01930b7e-4c00-7a11-8b22-c3d4e5f60718:44"),
    "endless seq": _with_header("ce_id", b"01930b7e-4c00-7a11-8b22-c3d4e5f60718:" + b"9" * 5000),
    "another type than the value": _with_header("ce_type", b"OTHER"),
    "type with a line break": _with_header("ce_type", b"A\nB"),
    "type not ASCII": _with_header("ce_type", "É".encode()),
    "no type": _with_header("ce_type", None),
    "no time": _with_header("ce_time", None),
    "null time": _with_null("ce_time"),
    "source not ours": _with_header("ce_source", b"/other"),
    "source without a tenant": _with_header("ce_source", b"/juinie/tenants/"),
    "value of two lines": _with_value(b'{"delta"', b'{\n"delta"'),
    "value with CR": _with_value(b'{"delta"', b'{\r"delta"'),
    "value that is no JSON": _with_value(b'"Hel"}}', b'"Hel"}'),
    "value with bytes after its JSON": _with_value(b'"Hel"}}', b'"Hel"}}}'),
    "value not UTF-8": _with_value(b"Hel", b"\xff"),
    "another version of CloudEvents": _with_header("ce_specversion", b"9.9"),
    "no version": _with_header("ce_specversion", None),
    "subject of another run": _with_header("ce_subject", b"01930b7e-4c00-7a11-8b22-000000000000"),
    "no subject": _with_header("ce_subject", None),
    "content of another type": _with_header("content-type", b"text/plain"),
    "no content type": _with_header("content-type", None),
    "time that is none": _with_header("ce_time", b"x"),
    "another time than the value": _with_header("ce_time", b"2020-01-01T00:00:00.000000Z"),
    "trace that is none": _with_header("traceparent", b"00-x-y-01"),
    "two ids": replace(
        golden_record("token"),
        headers=(*golden_record("token").headers, ("ce_id", b"01930b7e-4c00-7a11-8b22-c3d4e5f60718:44")),
    ),
    "value with a member twice": _with_value(b'"Hel"}}', b'"Hel"},"data":{}}'),
    "value with a member twice and in its place": _with_value(b'"Hel"}}', b'"Hel"},"seq":43}'),
    "value with white space at its end": _with_value(b'"Hel"}}', b'"Hel"} }'),
    "value with a member more": _with_value(b'"Hel"}}', b'"Hel"},"x":1}'),
    "value that names its seq twice": _with_value(b'"Hel"}}', b'"Hel"},"seq":44}'),
    "value without data": _with_value(b',"data":{"delta":"Hel"}', b""),
    "value nested without end": _with_value(b'"Hel"', b"[" * 100_000),
}


@pytest.mark.parametrize("golden", RUBBISH.values(), ids=RUBBISH)
def test_anything_else_is_a_bad_record_that_tells_nothing_of_itself(golden: GoldenRecord):
    with pytest.raises(BadRecord) as refused:
        read_record(golden.key, golden.value, golden.headers)
    assert str(refused.value) == "A Kafka record is not a run event that Juinie wrote."


# ---- the records of one run --------------------------------------------------------------------------------------------

type Said = tuple[TenantId, int, str, bytes, str | None]


def said(record: RunEventRecord) -> Said:
    """What `RunRecords` gives of it."""
    return record.tenant_id, record.seq, record.type, record.time.encode(), record.traceparent


OF_THIS_RUN = {
    name: golden
    for name, golden in RUBBISH.items()
    if golden.key == golden_record("token").key and golden.value is not None
}


@pytest.mark.parametrize("golden", golden_records(), ids=lambda golden: golden.name)
def test_what_we_wrote_is_read_at_a_glance(golden: GoldenRecord, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delattr("juinie_shared.contracts.record.read_record")
    assert RunRecords(RUN, TENANT).read(golden.value, golden.headers) == said(MEANT[golden.name])
    assert RunRecords(RUN, TENANT).read(golden.value, list(golden.headers)) == said(MEANT[golden.name])


@pytest.mark.parametrize("golden", OF_THIS_RUN.values(), ids=OF_THIS_RUN)
def test_rubbish_is_rubbish_at_a_second_look_too(golden: GoldenRecord):
    assert golden.value is not None
    with pytest.raises(BadRecord):
        RunRecords(RUN, TENANT).read(golden.value, golden.headers)


UNUSUAL = {
    "a header of a newer publisher": [("ce_new", b"\xff")],
    "two of them": [("ce_new", b"\xff"), ("ce_newer", None)],
    "a null header": [("theirs", None)],
}


@pytest.mark.parametrize("more", UNUSUAL.values(), ids=UNUSUAL)
@pytest.mark.parametrize("golden", golden_records(), ids=lambda golden: golden.name)
def test_what_is_unusual_is_read_as_anywhere(golden: GoldenRecord, more: list[tuple[str, bytes | None]]):
    for headers in ([*golden.headers, *more], [*more, *golden.headers], [*reversed(golden.headers)]):
        assert RunRecords(RUN, TENANT).read(golden.value, headers) == said(MEANT[golden.name])


def test_a_record_of_this_run_may_say_another_tenant():
    golden = golden_record("token")
    other = TenantId(UUID(int=5))
    assert RunRecords(RUN, other).read(golden.value, golden.headers) == said(MEANT["token"])


@given(data=st.data())
def test_whatever_lies_there_is_read_as_anywhere(data: st.DataObject):
    golden = golden_record(data.draw(st.sampled_from(["token", "untraced_end", "verbatim"])))
    headers = data.draw(
        st.lists(st.sampled_from([*golden.headers, *golden_record("verbatim").headers]), max_size=9)
    )
    read: list[Said | None] = []
    for reads in (
        lambda: said(read_record(golden.key, golden.value, headers)),
        lambda: RunRecords(RUN, TENANT).read(golden.value, headers),
    ):
        try:
            read.append(reads())
        except BadRecord:
            read.append(None)
    assert read[0] == read[1]


@pytest.mark.parametrize("size", [129, 100_000])
def test_nothing_of_rubbish_is_remembered_of_whatever_size(size: int, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delattr("juinie_shared.contracts.record._known_type")  # what remembers is not even asked
    golden = golden_records()[0]
    headers = [(name, b"x" * size if name == "ce_type" else value) for name, value in golden.headers]
    with pytest.raises(BadRecord):
        RunRecords(RUN, TENANT).read(golden.value, headers)
