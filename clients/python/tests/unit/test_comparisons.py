"""Each way in which a run can be broken is found, by hand-made pages, records and rows."""

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

import httpx
import pytest

from juinie.client import Client
from juinie.events import RunEvent
from juinie.verify.comparisons import (
    Record,
    faults_of_copy,
    faults_of_end,
    faults_of_records,
    faults_of_seqs,
    missing_on_kafka,
    out_of_order,
)
from juinie.verify.in_postgres import faults_of_rows
from juinie.verify.over_http import Log, check_log, read_log
from juinie.verify.report import Report

RUN_ID = "0193a1f2-7c3e-7d4b-9a55-0c6a2f1e8b70"
TIME = "2026-11-23T12:00:00.123456Z"


def event(seq: int, name: str = "token", data: str = '{"n":1.0}') -> RunEvent:
    return RunEvent.read(f'{{"seq":{seq},"type":"{name}","time":"{TIME}","data":{data}}}'.encode())


END = '{"status":"success","output":null,"error":null}'
LOG = [event(1, "run.created"), event(2), event(3, "run.finished", END)]
RUN = {"run_id": RUN_ID, "status": "success", "last_seq": 3}


def record(of: RunEvent, **other: bytes) -> Record:
    headers = {
        "ce_specversion": b"1.0", "ce_id": f"{RUN_ID}:{of.seq}".encode(), "ce_type": of.type.encode(),
        "ce_source": b"/juinie/tenants/5d2c6a1e-0000-4000-8000-000000000000", "ce_subject": RUN_ID.encode(),
        "ce_time": TIME.encode(), "content-type": b"application/json",
    }  # fmt: skip
    changed = {name.replace("__", "-"): value for name, value in other.items() if name != "value"}
    return Record(RUN_ID.encode(), other.get("value", of.raw), headers | changed)


def row(of: RunEvent, **other: Any) -> dict[str, Any]:
    moment = datetime(2026, 11, 23, 12, 0, 0, 123456, tzinfo=UTC)
    return {"seq": of.seq, "type": of.type, "data": of.raw_data.decode(), "occurred_at": moment} | other


def test_event_is_read_with_its_bytes() -> None:
    read = event(7, "a/b.c-d", r'{"big":9007199254740993,"nul":"\u0000"}')

    assert (read.seq, read.type, read.time) == (7, "a/b.c-d", TIME)
    assert read.raw_data == rb'{"big":9007199254740993,"nul":"\u0000"}'
    assert read.data == {"big": 9007199254740993, "nul": "\0"}


@pytest.mark.parametrize("raw", [b"", b"{}", b'{"seq":1}', b'{"seq":"x","type":"t","time":"","data":1}'])
def test_what_is_no_event_is_refused(raw: bytes) -> None:
    with pytest.raises(ValueError, match=r".+"):
        RunEvent.read(raw)


def test_whole_run_has_no_fault() -> None:
    records = [record(of) for of in LOG]

    assert list(faults_of_seqs(LOG, 1, 3)) == []
    assert list(faults_of_end(LOG, RUN)) == []
    assert list(faults_of_copy(LOG, LOG)) == []
    assert missing_on_kafka(LOG, records) == []
    assert list(out_of_order(records)) == []
    assert list(faults_of_records(LOG, records)) == []
    assert list(faults_of_rows(LOG, [row(of) for of in LOG])) == []


@pytest.mark.parametrize(
    ("events", "fault"),
    [
        ([LOG[0], LOG[2]], "seq 3 stands where 2 should"),
        (LOG[:2], "the events end at 2, the run says 3"),
        ([LOG[0], LOG[0], *LOG[1:]], "seq 1 stands where 2 should"),
        ([], "the events end at 0, the run says 3"),
    ],
)
def test_gap_repetition_and_missing_tail_are_found(events: list[RunEvent], fault: str) -> None:
    assert next(faults_of_seqs(events, 1, 3)) == fault


def test_run_whose_older_events_are_kept_no_more_begins_later() -> None:
    assert list(faults_of_seqs(LOG[1:], 2, 3)) == []


def test_run_of_which_no_event_is_kept_has_nothing_to_show() -> None:
    report = Report()
    check_log(Log(RUN, [], 4), report)

    assert (report.whole, report.checks[1].what) == (True, "ends as success, and none of its events is kept")
    assert list(faults_of_end([], RUN, 3)) == ["the run is success, its ends are at [], not at 3"]


@pytest.mark.parametrize(
    ("events", "status"),
    [
        (LOG[:2], "success"),
        ([*LOG, event(4)], "success"),
        ([*LOG[:2], event(3, "run.finished", END), event(4, "run.finished", END)], "success"),
        (LOG, "error"),
        (LOG, "running"),
    ],
    ids=["no end", "an event after it", "two ends", "another status", "an end of an open run"],
)
def test_wrong_end_is_found(events: list[RunEvent], status: str) -> None:
    assert list(faults_of_end(events, RUN | {"status": status}))


@pytest.mark.parametrize(
    ("copy", "fault"),
    [
        (LOG[:2], "2 events, not 3"),
        ([LOG[0], event(2, data='{"n":1}'), LOG[2]], "seq 2 has other bytes"),
        ([LOG[0], LOG[2], LOG[1]], "seq 3 stands where 2 should"),
    ],
)
def test_stream_that_differs_from_the_pages_is_found(copy: list[RunEvent], fault: str) -> None:
    assert list(faults_of_copy(LOG, copy)) == [fault]


def test_event_that_is_not_on_kafka_is_found() -> None:
    assert missing_on_kafka(LOG, [record(LOG[0]), record(LOG[2])]) == [2]


def test_copies_on_kafka_are_welcome_and_disorder_is_not() -> None:
    one, two, three = (record(of) for of in LOG)

    assert list(out_of_order([one, two, one, two, three])) == []
    assert list(out_of_order([one, three, two])) == [(2, 3)]


@pytest.mark.parametrize(
    ("wrong", "fault"),
    [
        (record(LOG[1], value=b"{}"), "the record of seq 2 has other bytes"),
        (record(LOG[1], ce_type=b"other"), "the record of seq 2 has a wrong ce_type"),
        (record(LOG[1], content__type=b"text/plain"), "the record of seq 2 has a wrong content-type"),
        (record(LOG[1], ce_source=b"/elsewhere"), "the record of seq 2 has a wrong ce_source"),
        (record(event(9)), f"a record with ce_id {RUN_ID}:9 is no event of the run"),
        (Record(RUN_ID.encode(), b"x", {}), "a record with ce_id  is no event of the run"),
    ],
)  # fmt: skip
def test_wrong_record_is_found(wrong: Record, fault: str) -> None:
    assert list(faults_of_records(LOG, [record(LOG[0]), wrong])) == [fault]


@pytest.mark.parametrize(
    "rows",
    [
        [row(LOG[0]), row(LOG[1], data="{}"), row(LOG[2])],
        [row(LOG[0]), row(LOG[1], type="other"), row(LOG[2])],
        [row(LOG[0]), row(LOG[1], occurred_at=datetime(2026, 1, 1, tzinfo=UTC)), row(LOG[2])],
        [row(LOG[0]), row(LOG[1])],
    ],
)
def test_rows_that_differ_are_found(rows: Sequence[dict[str, Any]]) -> None:
    assert len(list(faults_of_rows(LOG, rows))) == 1


@pytest.mark.parametrize(("status", "read"), [("success", [1, 2, 3, 4]), ("running", [1, 2, 3])])
async def test_event_behind_the_end_is_read_and_one_that_an_open_run_got_since_is_not(
    status: str, read: list[int]
) -> None:
    page = f'{{"events":[{",".join(of.raw.decode() for of in [*LOG, event(4)])}],"next_after_seq":4,"up_to_date":true}}'

    def answer(request: httpx.Request) -> httpx.Response:
        if request.url.path.endswith("/events"):
            return httpx.Response(200, content=page)
        return httpx.Response(200, json={**RUN, "status": status, "created_at": TIME})

    url = "http://juinie.test"
    async with Client(url, url, "jn_x", transport=httpx.MockTransport(answer)) as client:
        log = await read_log(client, RUN_ID)
    report = Report()
    check_log(log, report)

    assert [of.seq for of in log.events] == read
    assert any("the events end at 4" in check.detail for check in report.checks) is (status == "success")
