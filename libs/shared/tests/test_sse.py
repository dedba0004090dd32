"""SSE frames, byte for byte."""

from juinie_shared.contracts import sse


def test_preamble_has_no_blank_line():
    assert sse.preamble(2000) == b"retry: 2000\n: juinie\n"


def test_event_is_unnamed_and_its_id_follows_its_data():
    line = '{"seq":43,"type":"a","time":"2026-11-23T12:00:00.123456Z","data":"é 1e400"}'.encode()
    assert sse.event_frame(43, line) == b"data: " + line + b"\nid: 43\n\n"


def test_cursor_is_an_id_alone():
    assert sse.cursor_frame(999_999_999_999_999_999) == b"id: 999999999999999999\n\n"


def test_control_frame_is_named_and_carries_no_id():
    assert (
        sse.control_frame(sse.CAUGHT_UP, {"last_seq": 120})
        == b'event: stream.caught_up\ndata: {"last_seq":120}\n\n'
    )
    assert (
        sse.control_frame(sse.END, {"last_seq": 140, "status": "success"})
        == b'event: stream.end\ndata: {"last_seq":140,"status":"success"}\n\n'
    )
    assert sse.control_frame(sse.RESET, {"last_seq": 7}) == b'event: stream.reset\ndata: {"last_seq":7}\n\n'
    assert (
        sse.control_frame(sse.GAP, {"retained_from_seq": 5})
        == b'event: stream.gap\ndata: {"retained_from_seq":5}\n\n'
    )


def test_reconnect_says_when_and_why():
    assert (
        sse.reconnect_frame(1234, "draining")
        == b'retry: 1234\nevent: stream.reconnect\ndata: {"reason":"draining"}\n\n'
    )


def test_heartbeat_is_a_comment_without_a_blank_line():
    assert sse.HEARTBEAT == b":\n"


def test_media_type_has_no_charset():
    assert sse.MEDIA_TYPE == "text/event-stream"
