"""Bodies that cost a server as much as they can: as large as allowed, and each wrong, or right, in the dearest way.

Compressed most of them are a few KB: nobody needs a fast line to send many.
"""

from collections.abc import Callable

SIZE_BYTES = 1024 * 1024

GOOD = "good events"
"""The name of the body that others are measured by."""


def costly_bodies() -> dict[str, tuple[str, bytes]]:
    """By name: what the body asks for (`append`, `create`, `finish`, `claim`), and the body.."""
    return {
        GOOD: ("append", events(b'{"type":"x","data":"' + b"x" * 1000 + b'"}')),
        "nested data": ("append", events(_data(b"[[[[[[]]]]]]", 77))),
        "pairs of surrogates": ("append", events(_data(rb'"\ud83d\ude00"', 66))),
        "half a million zeros": ("append", _filled(b'{"events":[', b"0", b"]}")),
        "half a million zeros to finish": ("finish", _filled(b'{"status":"success","events":[', b"0", b"]}")),
        "empty events": ("append", _filled(b'{"events":[', b"{}", b"]}")),
        "too many good events": ("append", _filled(b'{"events":[', b'{"type":"x"}', b"]}")),
        "arrays for events": ("append", events(_filled(b"[", b"0", b"]", 1040))),
        "three faults an event": (
            "append",
            events(b'{"type":"run.","time":"x","data":' + b"[" * 480 + b"]" * 480 + b"}"),
        ),
        "unknown fields of events": ("append", events(_unknown(b"{", b"}", 1040))),
        "names twice in events": ("append", events(_filled(b"{", b'"a":0', b"}", 1040))),
        "unknown fields": ("create", _unknown(b"{", b"}")),
        "unknown fields of a claim": ("create", _unknown(b'{"agent":"a","claim":{', b"}}")),
        "names in escapes": ("create", _filled(b"{", lambda n: b'"\\u0061%x":0' % n, b"}")),
        "names with surrogates": ("create", _filled(b"{", lambda n: b'"\\ud800%x":0' % n, b"}")),
        "a name twice, then brackets": ("create", _filled(b'{"a":0,"a":[', b"[]", b"]}")),
        "a list for an object": ("create", _filled(b'{"agent":"a","claim":[', b"{}", b"]}")),
        "backslashes before a lone surrogate": ("create", b'{"agent":"' + b"\\\\" * 500_000 + b'\\ud800"}'),
        "lone surrogates": ("create", b'{"agent":"' + b"\\ud800" * 170_000 + b'"}'),
        "a huge number": ("create", b'{"agent":"a","timeout_seconds":' + b"9" * 1_000_000 + b"}"),
        "a long name with an escape": ("create", b'{"' + b"a" * 1_000_000 + b'\\/b":1}'),
        "long texts in lists": ("append", b'{"events":[' + b",".join([_text(250_000)] * 4) + b"]}"),
        "deep agents": ("claim", _filled(b'{"worker_id":"w","agents":[', b"[" * 900 + b"]" * 900, b"]}")),
        "huge numbers for agents": ("claim", _filled(b'{"worker_id":"w","agents":[', b"9" * 4000, b"]}")),
    }


def events(event: bytes) -> bytes:
    """A thousand times this event."""
    return b'{"events":[' + b",".join([event] * 1000) + b"]}"


def _text(length: int) -> bytes:
    return b'{"type":"x","data":["' + b"a" * length + b'"]}'


def _data(value: bytes, times: int) -> bytes:
    return b'{"type":"x","data":[' + b",".join([value] * times) + b"]}"


def _unknown(head: bytes, tail: bytes, size_bytes: int = SIZE_BYTES) -> bytes:
    return _filled(head, lambda n: b'"%x":0' % n, tail, size_bytes)


def _filled(
    head: bytes, piece: bytes | Callable[[int], bytes], tail: bytes, size_bytes: int = SIZE_BYTES
) -> bytes:
    """As many pieces as have room, with commas between."""
    pieces: list[bytes] = []
    left = size_bytes - len(head) - len(tail)
    while left > 0:
        pieces.append(piece(len(pieces)) if callable(piece) else piece)
        left -= len(pieces[-1]) + 1
    return head + b",".join(pieces[:-1]) + tail
