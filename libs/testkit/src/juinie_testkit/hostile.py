"""Requests that a proxy in front may read otherwise than the server behind it, byte for byte. None of them may be served.

From RFC 9112 (§2.2, §3.2, §5.1, §5.2, §6.1, §6.3, §7.1) and the ways in which servers and proxies have differed over it.
"""

import asyncio
from contextlib import suppress

HOST = b"Host: a\r\n"
CHUNKED = b"Transfer-Encoding: chunked\r\n"
FOLLOWER = b"GET /livez HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"
"""Sent behind each: what is refused takes it along."""


def get(
    *lines: bytes, target: bytes = b"/livez", version: bytes = b"HTTP/1.1", method: bytes = b"GET"
) -> bytes:
    """A request without a body; `lines` are its header lines, with their ends."""
    return method + b" " + target + b" " + version + b"\r\n" + b"".join(lines) + b"\r\n"


def post(*lines: bytes, body: bytes = b"") -> bytes:
    return b"POST /livez HTTP/1.1\r\n" + HOST + b"".join(lines) + b"\r\n" + body


AMBIGUOUS: dict[str, bytes] = {
    # one host, and one that can be
    "no host": get(),
    "two hosts": get(HOST, b"Host: b\r\n"),
    "a host with a space": get(b"Host: a b\r\n"),
    "a host with a user": get(b"Host: u@a\r\n"),
    "a host with a path": get(b"Host: a/b\r\n"),
    "hosts with a comma": get(b"Host: a, b\r\n"),
    # header lines
    "space before the colon": get(HOST, b"X : a\r\n"),
    "space before the host's colon": get(b"Host : a\r\n"),
    "space before a name": get(HOST, b" X: a\r\n"),
    "a folded first line": get(b" Host: a\r\n", HOST),
    "a folded line": get(HOST, b"X: a\r\n b\r\n"),
    "a line folded by a tab": get(HOST, b"X: a\r\n\tb\r\n"),
    "a bare CR": get(HOST, b"X: a\rY: b\r\n"),
    "bare LFs": b"GET /livez HTTP/1.1\nHost: a\n\n",
    "one bare LF": get(HOST, b"X: a\n"),
    "NUL in a value": get(HOST, b"X: a\x00b\r\n"),
    "NUL in a name": get(HOST, b"X\x00: a\r\n"),
    "no colon": get(HOST, b"Xa\r\n"),
    "no name": get(HOST, b": a\r\n"),
    "a name that is no token": get(HOST, b"X(a): a\r\n"),
    # lengths
    "two lengths": post(b"Content-Length: 1\r\nContent-Length: 2\r\n", body=b"ab"),
    "the same length twice": post(b"Content-Length: 1\r\nContent-Length: 1\r\n", body=b"a"),
    "lengths with a comma": post(b"Content-Length: 1, 1\r\n", body=b"a"),
    "a length with a sign": post(b"Content-Length: +1\r\n", body=b"a"),
    "a negative length": post(b"Content-Length: -1\r\n"),
    "a hexadecimal length": post(b"Content-Length: 0x1\r\n", body=b"a"),
    "an empty length": post(b"Content-Length: \r\n"),
    "an endless length": post(b"Content-Length: 99999999999999999999999\r\n"),
    "a length of two words": post(b"Content-Length: 1 1\r\n", body=b"a"),
    "a length and chunks": post(b"Content-Length: 5\r\n", CHUNKED, body=b"0\r\n\r\n"),
    "chunks and a length": post(CHUNKED, b"Content-Length: 5\r\n", body=b"0\r\n\r\n"),
    # codings
    "another coding": post(b"Transfer-Encoding: xchunked\r\n", body=b"0\r\n\r\n"),
    "identity": post(b"Transfer-Encoding: identity\r\n", body=b"0\r\n\r\n"),
    "chunked twice": post(b"Transfer-Encoding: chunked, chunked\r\n", body=b"0\r\n\r\n"),
    "chunked not last": post(b"Transfer-Encoding: chunked, identity\r\n", body=b"0\r\n\r\n"),
    "gzip and chunked": post(b"Transfer-Encoding: gzip, chunked\r\n", body=b"0\r\n\r\n"),
    "chunked in two lines": post(CHUNKED, CHUNKED, body=b"0\r\n\r\n"),
    "chunked behind a vertical tab": post(b"Transfer-Encoding: \x0bchunked\r\n", body=b"0\r\n\r\n"),
    "chunked in quotes": post(b'Transfer-Encoding: "chunked"\r\n', body=b"0\r\n\r\n"),
    "chunked with a parameter": post(b"Transfer-Encoding: chunked;q=1\r\n", body=b"0\r\n\r\n"),
    "chunked and a comma": post(b"Transfer-Encoding: chunked,\r\n", body=b"0\r\n\r\n"),
    "a coding with a space before its colon": post(b"Transfer-Encoding : chunked\r\n", body=b"0\r\n\r\n"),
    "a folded coding": post(b"Transfer-Encoding:\r\n chunked\r\n", body=b"0\r\n\r\n"),
    "chunks in HTTP/1.0": b"POST /livez HTTP/1.0\r\n" + HOST + CHUNKED + b"\r\n0\r\n\r\n",
    # chunks
    "a chunk size with 0x": post(CHUNKED, body=b"0x1\r\na\r\n0\r\n\r\n"),
    "a chunk size with a sign": post(CHUNKED, body=b"+1\r\na\r\n0\r\n\r\n"),
    "a negative chunk size": post(CHUNKED, body=b"-1\r\na\r\n0\r\n\r\n"),
    "a chunk size with a space behind": post(CHUNKED, body=b"1 \r\na\r\n0\r\n\r\n"),
    "a chunk size with a space before": post(CHUNKED, body=b" 1\r\na\r\n0\r\n\r\n"),
    "an endless chunk size": post(CHUNKED, body=b"FFFFFFFFFFFFFFFFF\r\na\r\n0\r\n\r\n"),
    "NUL in a chunk extension": post(CHUNKED, body=b"1;\x00\r\na\r\n0\r\n\r\n"),
    "LF in a chunk extension": post(CHUNKED, body=b"1;a\na\r\n0\r\n\r\n"),
    "CR in a chunk extension": post(CHUNKED, body=b"1;a\rb\r\na\r\n0\r\n\r\n"),
    "a bare LF behind a chunk size": post(CHUNKED, body=b"1\na\r\n0\r\n\r\n"),
    "a bare LF behind a chunk": post(CHUNKED, body=b"1\r\na\n0\r\n\r\n"),
    "a chunk longer than its size": post(CHUNKED, body=b"1\r\naa0\r\n\r\n"),
    "bare LFs behind the last chunk": post(CHUNKED, body=b"0\n\n"),
    # request lines
    "an absolute target": get(HOST, target=b"http://a/livez"),
    "an authority as target": get(HOST, target=b"a:443"),
    "a star as target": get(HOST, target=b"*", method=b"OPTIONS"),
    "CONNECT": get(HOST, target=b"a:443", method=b"CONNECT"),
    "NUL in the target": get(HOST, target=b"/liv\x00ez"),
    "CR in the target": get(HOST, target=b"/liv\rez"),
    "a space in the target": get(HOST, target=b"/li vez"),
    "a target that is not ASCII": get(HOST, target=b"/liv\xc3\xa9z"),
    "tabs in the request line": b"GET\t/livez\tHTTP/1.1\r\n" + HOST + b"\r\n",
    "HTTP/0.9": b"GET /livez\r\n\r\n",
    "HTTP/1.2": get(HOST, version=b"HTTP/1.2"),
    "http in small letters": get(HOST, version=b"http/1.1"),
    "the preface of HTTP/2": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "a method in small letters": get(HOST, method=b"get"),
    "a body behind an offer to upgrade": post(
        b"Connection: Upgrade\r\nUpgrade: h2c\r\nContent-Length: 3\r\n", body=b"abc"
    ),
}


async def all_answers(port: int, sent: bytes, timeout_seconds: float = 30) -> bytes:
    """Send these bytes and a whole request behind them; all that comes until the server closes."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(sent + FOLLOWER)
    answers = bytearray()
    with suppress(ConnectionResetError):
        async with asyncio.timeout(timeout_seconds):
            while piece := await reader.read(65536):
                answers += piece
    writer.transport.abort()
    return bytes(answers)
