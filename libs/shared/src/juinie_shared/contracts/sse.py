"""SSE frames as Juinie writes them (WHATWG HTML §9.2). LF line ends; every frame is whole and ready to send.

Only stored events carry an `id`, and it follows their `data`: a connection cut between the two lines must not
move the client's cursor past an event that it did not get.
"""

import msgspec

MEDIA_TYPE = "text/event-stream"

CAUGHT_UP = "stream.caught_up"
END = "stream.end"
RECONNECT = "stream.reconnect"
RESET = "stream.reset"
GAP = "stream.gap"

HEARTBEAT = b":\n"


def preamble(retry_ms: int) -> bytes:
    """The first bytes of a stream. No blank line: some clients take one for a message."""
    return b"retry: %d\n: juinie\n" % retry_ms


def event_frame(seq: int, event_json: bytes) -> bytes:
    """One run event: unnamed, one line of data, then its id."""
    return b"data: %b\nid: %d\n\n" % (event_json, seq)


def cursor_frame(seq: int) -> bytes:
    """Moves the client's cursor without an event: past what `types` left out."""
    return b"id: %d\n\n" % seq


def control_frame(name: str, data: dict[str, object]) -> bytes:
    """A `stream.*` frame: named, never with an id."""
    return b"event: %b\ndata: %b\n\n" % (name.encode(), msgspec.json.encode(data))


def reconnect_frame(retry_ms: int, reason: str) -> bytes:
    """Come back after `retry_ms`: the last frame of a stream that ends before its run does."""
    return b"retry: %d\n%b" % (retry_ms, control_frame(RECONNECT, {"reason": reason}))
