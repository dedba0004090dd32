"""The records that the publisher has to write are the ones that this gateway reads."""

from uuid import UUID

import pytest

from juinie_shared.contracts.sse import event_frame
from juinie_shared.domain.ids import RunId, TenantId
from juinie_stream_gateway.core.hub import Room
from juinie_stream_gateway.edges.kafka import checked_event
from juinie_testkit.golden import GoldenRecord, golden_records


@pytest.mark.parametrize("golden", golden_records(), ids=lambda golden: golden.name)
def test_a_golden_record_becomes_a_frame_of_the_same_bytes(golden: GoldenRecord) -> None:
    named = dict(golden.headers)
    tenant_id = named["ce_source"].decode().rpartition("/")[2]
    read = checked_event(golden.value, golden.headers, room(golden, tenant_id))
    assert not isinstance(read, str)
    event, moment, trace = read
    assert event.frame == event_frame(event.seq, golden.value)
    assert event.frame.startswith(b"data: " + golden.value + b"\nid: ")
    assert named["ce_id"] == b"%b:%d" % (golden.key, event.seq)
    assert (event.type.encode(), moment) == (named["ce_type"], named["ce_time"])
    assert trace == (named["traceparent"].decode() if "traceparent" in named else None)


def test_a_golden_record_of_another_tenant_is_foreign() -> None:
    golden = golden_records()[0]
    other = "00000000-0000-0000-0000-000000000000"
    assert checked_event(golden.value, golden.headers, room(golden, other)) == "foreign"
    assert checked_event(golden.value[:-1], golden.headers, room(golden, other)) == "bad"


@pytest.mark.parametrize("name", ["ce_id", "ce_type", "ce_time", "ce_source"])
def test_a_record_whose_header_has_no_value_is_bad(name: str) -> None:
    golden = golden_records()[0]
    named = dict(golden.headers)
    tenant_id = named["ce_source"].decode().rpartition("/")[2]
    headers: list[tuple[str, bytes | None]] = list({**named, name: None}.items())
    assert checked_event(golden.value, headers, room(golden, tenant_id)) == "bad"


def test_a_record_without_a_value_is_bad() -> None:
    golden = golden_records()[0]
    tenant_id = dict(golden.headers)["ce_source"].decode().rpartition("/")[2]
    assert checked_event(None, golden.headers, room(golden, tenant_id)) == "bad"


def test_a_header_of_others_without_a_value_is_ignored() -> None:
    golden = golden_records()[0]
    tenant_id = dict(golden.headers)["ce_source"].decode().rpartition("/")[2]
    headers = [*golden.headers, ("theirs", None)]
    assert not isinstance(checked_event(golden.value, headers, room(golden, tenant_id)), str)


def room(golden: GoldenRecord, tenant_id: str) -> Room:
    assert golden.key is not None
    return Room(RunId(UUID(golden.key.decode())), TenantId(UUID(tenant_id)))
