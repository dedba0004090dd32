"""Requests that are nearly right: a valid one, made wrong in one or several ways by a seeded dice.

Each way is a function of the dice and the bytes; its name is the kind under which cases are counted.
"""

import gzip
import random
from collections.abc import Callable, Sequence
from functools import cache

type Mutation = Callable[[random.Random, bytes, Sequence[bytes]], bytes]
"""From a dice, a request and all the valid requests there are, to bytes."""

_CUTS = (b"\r\n", b"\r\n\r\n", b": ", b" ", b"/", b"?", b"&", b"=", b'"', b"{", b"[", b",")
_HOSTILE = (
    b"\x00", b"\xff\xfe", b"\r", b"\n", b"\r\n ", b"\xe2\x80\xa8", b"%00", b"%2e%2e/", b"\xed\xa0\x80", b"\\ud800", b"1e400", b"-1",
    b"9" * 40, b"NaN", b"'--", b"{" * 200, b"[" * 200, b'"' * 9, b"\x1f\x8b", b"data: x\n\n", b"id: 9\n", b"\xef\xbb\xbf",
)  # fmt: skip
_HEADERS = (
    b"Content-Length: 5", b"Content-Length: -1", b"Content-Length: 99999999999999999999", b"Transfer-Encoding: chunked",
    b"Transfer-Encoding: gzip, chunked", b"Transfer-Encoding : chunked", b"Expect: 100-continue", b"Upgrade: h2c", b"Connection: upgrade",
    b"Host: other", b"Content-Type: text/plain", b"Content-Type: application/json; charset=utf-16", b"Content-Encoding: gzip",
    b"Content-Encoding: br", b"Accept: text/html", b"Accept: ;;;q=9", b"Authorization: Bearer x", b"X-Api-Key: x", b"Idempotency-Key: ",
    b"Idempotency-Key: a", b"Juinie-Lease: x", b"Last-Event-ID: x", b"Last-Event-ID: 3", b"Range: bytes=0-", b"If-None-Match: *",
    b"traceparent: 00-x-y-z", b"Origin: null", b"Origin: http://localhost:1", b"Access-Control-Request-Method: GET", b" folded: yes",
    b"Cookie: a=b", b"X-Forwarded-For: 1.1.1.1",
)  # fmt: skip
_METHODS = (
    b"GET",
    b"HEAD",
    b"POST",
    b"PUT",
    b"PATCH",
    b"DELETE",
    b"OPTIONS",
    b"TRACE",
    b"CONNECT",
    b"get",
    b"PRI",
    b"G\x00T",
)


def flip_bits(dice: random.Random, data: bytes, _all: Sequence[bytes]) -> bytes:
    changed = bytearray(data)
    for _ in range(dice.choice((1, 1, 2, 8))):
        changed[dice.randrange(len(changed))] ^= 1 << dice.randrange(8)
    return bytes(changed)


def insert(dice: random.Random, data: bytes, _all: Sequence[bytes]) -> bytes:
    at = dice.randrange(len(data) + 1)
    return data[:at] + dice.choice((*_HOSTILE, dice.randbytes(dice.randrange(1, 20)))) + data[at:]


def truncate(dice: random.Random, data: bytes, _all: Sequence[bytes]) -> bytes:
    return data[: dice.randrange(1, max(2, len(data)))]


def cut_out(dice: random.Random, data: bytes, _all: Sequence[bytes]) -> bytes:
    start = dice.randrange(len(data))
    return data[:start] + data[start + dice.randrange(1, 40) :] or b"\r\n"


def repeat(dice: random.Random, data: bytes, _all: Sequence[bytes]) -> bytes:
    start = dice.randrange(len(data))
    piece = data[start : start + dice.randrange(1, 60)]
    return data[:start] + piece * dice.choice((2, 3, 50)) + data[start:]


def splice(dice: random.Random, data: bytes, every: Sequence[bytes]) -> bytes:
    other, mark = dice.choice(every), dice.choice(_CUTS)
    head, _, tail = data.partition(mark)[0], mark, other.rpartition(mark)[2]
    return head + mark + tail


def add_header(dice: random.Random, data: bytes, _all: Sequence[bytes]) -> bytes:
    line, _, rest = data.partition(b"\r\n")
    return b"\r\n".join([line, *dice.sample(_HEADERS, dice.choice((1, 1, 2, 5))), rest])


def double_header(dice: random.Random, data: bytes, _all: Sequence[bytes]) -> bytes:
    head, mark, body = data.partition(b"\r\n\r\n")
    line, *headers = head.split(b"\r\n")
    return b"\r\n".join([line, *headers, dice.choice(headers or [line])]) + mark + body


def swell_header(dice: random.Random, data: bytes, _all: Sequence[bytes]) -> bytes:
    line, _, rest = data.partition(b"\r\n")
    many = [
        b"X-%d: %s" % (number, b"a" * dice.choice((1, 400))) for number in range(dice.choice((90, 101, 2000)))
    ]
    huge = [b"X: " + b"a" * dice.choice((16_000, 33_000, 200_000))]
    return b"\r\n".join([line, *dice.choice((many, huge)), rest])


def change_method(dice: random.Random, data: bytes, _all: Sequence[bytes]) -> bytes:
    return dice.choice(_METHODS) + b" " + data.partition(b" ")[2]


def change_version(dice: random.Random, data: bytes, _all: Sequence[bytes]) -> bytes:
    versions = (b"HTTP/1.0", b"HTTP/2.0", b"HTTP/0.9", b"HTTP/1.9", b"http/1.1", b"HTTP/1.1 x", b"")
    return data.replace(b"HTTP/1.1", dice.choice(versions), 1)


def change_target(dice: random.Random, data: bytes, _all: Sequence[bytes]) -> bytes:
    method, _, rest = data.partition(b" ")
    target, _, rest = rest.partition(b" ")
    at = dice.randrange(len(target) + 1)
    target = dice.choice(
        (target[:at] + dice.choice(_HOSTILE) + target[at:], target + b"?" + dice.choice(_HOSTILE), b"http://a" + target,
         b"*", b"/" * 500, target + b"&a=b" * 300, b"//" + target, target.replace(b"/v1", b"/v1/../v1"), target + b"#x")
    )  # fmt: skip
    return b" ".join([method, target, rest])


def bare_line_ends(dice: random.Random, data: bytes, _all: Sequence[bytes]) -> bytes:
    return data.replace(b"\r\n", dice.choice((b"\n", b"\r", b"\n\r", b"\r\r\n")), dice.choice((1, 2, -1)))


def lie_about_length(dice: random.Random, data: bytes, _all: Sequence[bytes]) -> bytes:
    head, mark, body = data.partition(b"\r\n\r\n")
    lie = dice.choice(
        (
            b"0",
            b"%d" % (len(body) + 1),
            b"%d" % max(0, len(body) - 1),
            b"+3",
            b"0x10",
            b"1 1",
            b"1,1",
            b"",
            b"-0",
        )
    )
    lines = [line for line in head.split(b"\r\n") if not line.lower().startswith(b"content-length")]
    return b"\r\n".join([*lines, b"Content-Length: " + lie]) + mark + body


def chunk(dice: random.Random, data: bytes, _all: Sequence[bytes]) -> bytes:
    """The body in chunks, well made or not."""
    head, mark, body = data.partition(b"\r\n\r\n")
    lines = [line for line in head.split(b"\r\n") if not line.lower().startswith(b"content-length")]
    pieces = bytearray()
    while body:
        size = dice.randrange(1, 9)
        pieces += b"%x\r\n%s\r\n" % (size if dice.random() < 0.97 else size + 1, body[:size])
        body = body[size:]
    ends = (b"0\r\n\r\n", b"0\r\nX: y\r\n\r\n", b"", b"0\r\n", b"00000\r\n\r\n", b"0;a=b\r\n\r\n", b"-1\r\n\r\n", b"fffffffffffffffff\r\n", b"z\r\n\r\n",
            b"0\r\nContent-Length: 3\r\n\r\n", b"7fffffff\r\nabc", b"0\r\n" + b"T: x\r\n" * 200 + b"\r\n")  # fmt: skip
    return b"\r\n".join([*lines, b"Transfer-Encoding: chunked"]) + mark + bytes(pieces) + dice.choice(ends)


def compress(dice: random.Random, data: bytes, _all: Sequence[bytes]) -> bytes:
    """The body in gzip: whole, broken, doubled, a bomb."""
    head, mark, body = data.partition(b"\r\n\r\n")
    packed = gzip.compress(body, 1, mtime=0)
    packed = dice.choice(
        (
            packed,
            packed[:-4],
            packed + b"x",
            packed + packed,
            _bomb() + packed,
            b"\x1f\x8b\x08\x00",
        )
    )
    lines = [line for line in head.split(b"\r\n") if not line.lower().startswith(b"content-length")]
    return (
        b"\r\n".join([*lines, b"Content-Encoding: gzip", b"Content-Length: %d" % len(packed)]) + mark + packed
    )


@cache
def _bomb() -> bytes:
    return gzip.compress(b" " * 3_000_000, 9, mtime=0)


def change_body(dice: random.Random, data: bytes, every: Sequence[bytes]) -> bytes:
    """Other bytes in the body, and a length that is right: so that they are read."""
    head, mark, body = data.partition(b"\r\n\r\n")
    for _ in range(dice.choice((1, 2, 4))):
        body = dice.choice((flip_bits, insert, cut_out, repeat, truncate))(dice, body or b"{}", every)
    lines = [line for line in head.split(b"\r\n") if not line.lower().startswith(b"content-length")]
    return b"\r\n".join([*lines, b"Content-Length: %d" % len(body)]) + mark + body


def pipeline(dice: random.Random, data: bytes, every: Sequence[bytes]) -> bytes:
    return b"".join([data, *dice.choices(every, k=dice.randrange(1, 6))])


def noise(dice: random.Random, _data: bytes, _all: Sequence[bytes]) -> bytes:
    return dice.randbytes(dice.choice((1, 20, 500, 40_000)))


def nothing(_dice: random.Random, data: bytes, _all: Sequence[bytes]) -> bytes:
    """As it is: the control, without which nobody knows that the valid requests are valid."""
    return data


MUTATIONS: tuple[Mutation, ...] = (
    flip_bits, insert, truncate, cut_out, repeat, splice, add_header, double_header, swell_header, change_method, change_version,
    change_target, bare_line_ends, lie_about_length, chunk, compress, change_body, change_body, pipeline, noise, nothing,
)  # fmt: skip


def make_case(dice: random.Random, requests: Sequence[bytes]) -> tuple[str, bytes]:
    """The kind of a case, and its bytes. One in four is mutated twice more, and keeps the kind of the first."""
    first = dice.choice(MUTATIONS)
    data = first(dice, dice.choice(requests), requests)
    if first is not nothing and dice.random() < 0.25:
        for mutation in dice.choices(MUTATIONS, k=2):
            data = mutation(dice, data or b"\r\n", requests)
    return first.__name__, _without_long_polls(data) or b"\r\n"


def _without_long_polls(data: bytes) -> bytes:
    """A long poll with other requests behind it holds its connection for as long as it asks to: that would pass for a hang."""
    return data.replace(b"/wait", b"/w_it") if data.count(b" HTTP/1.") > 1 else data
