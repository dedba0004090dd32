"""The frame reader takes what the contract promises, and nothing else."""

import pytest

from juinie_testkit.frames import Frame, FrameReader, StreamViolation

PREAMBLE = b"retry: 2000\n: juinie\n"
EVENT = b'data: {"seq":1,"type":"a","time":"2026-11-23T12:00:00.000000Z","data":{}}\nid: 1\n\n'


def read(*parts: bytes) -> list[Frame]:
    reader = FrameReader()
    frames = [frame for part in parts for frame in reader.feed(part)]
    reader.finish()
    return frames


def test_a_whole_stream_is_read():
    caught_up = b'event: stream.caught_up\ndata: {"last_seq":1}\n\n'
    end = b'event: stream.end\ndata: {"last_seq":1,"status":"success"}\n\n'
    retry, comment, event, control, heartbeat, cursor, last = read(
        PREAMBLE, EVENT, caught_up, b":\n", b"id: 7\n\n", end
    )
    assert (retry.retry, comment.comment, heartbeat.comment, cursor.id) == (2000, "juinie", "", 7)
    assert (event.id, event.json["type"], event.is_run_event) == (1, "a", True)
    assert (control.event, control.json) == ("stream.caught_up", {"last_seq": 1})
    assert last.json["status"] == "success"


def test_bytes_may_come_one_by_one():
    whole = PREAMBLE + EVENT
    assert read(*(bytes([byte]) for byte in whole)) == read(whole)


@pytest.mark.parametrize(
    ("body", "says"),
    [
        (EVENT, "first line"),
        (PREAMBLE + b"\n", "blank line"),
        (PREAMBLE + b"id: 1\n" + EVENT, "comes before its data"),
        (PREAMBLE + EVENT.replace(b"id: 1", b"id: 2"), "says of itself"),
        (PREAMBLE + EVENT.replace(b"id: 1\n", b""), "id is None"),
        (PREAMBLE + b"event: message\n" + EVENT, "Only stream"),
        (PREAMBLE + b"event: stream.end\ndata: {}\nid: 1\n\n", "carries an id"),
        (PREAMBLE + b"data: 1\ndata: 2\n\n", "twice"),
        (PREAMBLE + b"data: 1\nevent: stream.end\n\n", "does not come first"),
        (PREAMBLE + b"event: stream.end\n: comment\ndata: {}\n\n", "within a frame"),
        (PREAMBLE + b"colour: red\n\n", "Unknown field"),
        (PREAMBLE.replace(b"\n", b"\r\n"), "CR"),
        (PREAMBLE + EVENT[:-1], "in the middle"),
    ],
)
def test_every_breach_of_the_contract_is_a_violation(body: bytes, says: str):
    with pytest.raises(StreamViolation, match=says):
        read(body)
