"""Read a request's body: its type and coding, its size while it arrives, its JSON, and all its faults at once."""

import zlib
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from itertools import islice
from typing import Any

import msgspec
from pydantic import ValidationError
from starlette.requests import ClientDisconnect, Request

from juinie_api.edges import json_text
from juinie_api.edges.faults import TOO_LARGE, faults_of
from juinie_api.edges.head import Head
from juinie_api.edges.limits import Limits
from juinie_api.edges.problems import Refused
from juinie_api.edges.schemas import Body
from juinie_api.edges.unanswered import UNCOUNTED_BYTES
from juinie_shared.runtime.problems import MOST_FAULTS, Fault

_GZIP = 31
"""zlib's window bits for the gzip format alone."""

_GZIP_OVERHEAD = 64 * 1024
"""What gzip may add to a body that does not get smaller: far more than it does."""

_GZIP_MEMBERS = 100
"""Programs that compress in parallel write one a block; a body of thousands is made to cost us time."""


type Receive = Callable[[], Awaitable[Any]]
"""ASGI's."""
type Hold = Callable[[int], None]
"""Called with the bytes that a body has grown by, before more is read: raises when they are too many."""


async def read_body(receive: Receive, head: Head, limit_bytes: int, hold: Hold) -> bytes:
    """The body, decompressed.

    Raises:
        Refused: 415 for another type or coding, 413 as soon as it is too large, 400 for broken gzip.
        ClientDisconnect: the client left before all of it was there.
        ServerBusy: `hold` says so.
    """
    coding = (head.get(b"content-encoding") or "identity").strip().lower()
    if coding not in {"identity", "gzip", ""}:
        raise Refused(415, "unsupported_coding", "Content-Encoding may be gzip or identity.")
    if (
        coding != "gzip" and int(head.get(b"content-length") or 0) > limit_bytes
    ):  # before any of it is asked for
        raise _too_large(limit_bytes)
    if coding == "gzip":
        body = await _joined(_gunzip(_chunks(receive), limit_bytes), limit_bytes, hold)
    else:
        body = await _plain(receive, limit_bytes, hold)
    if body:
        _require_json_type(head.get(b"content-type") or "")
    return body


async def _plain(receive: Receive, limit_bytes: int, hold: Hold) -> bytes:
    """Most often it is there as a whole, and copied no more."""
    body, more = await _next(receive)
    if more:
        return await _joined(_chunks(receive, body), limit_bytes, hold)
    if len(body) > limit_bytes:
        raise _too_large(limit_bytes)
    if len(body) > UNCOUNTED_BYTES:
        hold(len(body))
    return body


async def _joined(chunks: AsyncIterator[bytes], limit_bytes: int, hold: Hold) -> bytes:
    body, held = bytearray(), 0
    async for chunk in chunks:
        body += chunk
        if len(body) > limit_bytes:
            raise _too_large(limit_bytes)
        if len(body) > UNCOUNTED_BYTES:
            hold(len(body) - held)
            held = len(body)
    return bytes(body)


async def _chunks(receive: Receive, first: bytes = b"") -> AsyncGenerator[bytes]:
    """`first`: what was received of it already."""
    if first:
        yield first
    more = True
    while more:
        chunk, more = await _next(receive)
        if chunk:
            yield chunk


async def _next(receive: Receive) -> tuple[bytes, bool]:
    """What came of the body, and whether more is to come."""
    message = await receive()
    if message["type"] == "http.disconnect":
        raise ClientDisconnect
    return message.get("body", b""), message.get("more_body", False)


async def refuse_body(request: Request) -> None:
    """For routes that take no body: what one asks for would be ignored.

    Raises:
        Refused: 422 as soon as a byte of it is there.
    """
    if "content-length" not in request.headers and "transfer-encoding" not in request.headers:
        return
    async for chunk in request.stream():
        if chunk:
            fault = Fault("", "unexpected_body", "Send no body with this method.")
            raise Refused(422, "invalid", "This route takes no body.", [fault])


def parse_body[B: Body](cls: type[B], body: bytes, limits: Limits) -> tuple[B, bytes]:
    """The body's fields, and its canonical bytes (no white space): what a fingerprint is taken of.

    Raises:
        Refused: 400 when it is no JSON; 413 and 422 with all faults that it has.
    """
    compact, lone_surrogates = read_json(body, limits)
    return parse_json(cls, compact, limits, lone_surrogates=lone_surrogates), compact


def read_json(body: bytes, limits: Limits) -> tuple[bytes, bool]:
    """The JSON text without white space, and whether a string in it holds a lone surrogate, which was replaced.

    Raises:
        Refused: 400 when it is no JSON, 422 when it is nested too deep to be read.
    """
    try:
        return json_text.check_syntax(body)
    except json_text.NotJson as error:
        raise Refused(400, "bad_json", "The body is no JSON text in UTF-8.") from error
    except json_text.TooDeep as error:
        raise Refused(422, "invalid", "The body has faults.", [_too_deep(limits.depth)]) from error


def parse_json[B: Body](cls: type[B], compact: bytes, limits: Limits, *, lone_surrogates: bool) -> B:
    """The fields of a body that `read_json` has read.

    Raises:
        Refused: 413 and 422 with all faults that it has.
    """
    faults = [_SURROGATE] if lone_surrogates else []
    shaped = _Shape(limits, faults).of(cls, msgspec.Raw(compact), "")
    try:
        parsed = cls.model_validate(shaped, context=limits)
    except ValidationError as error:
        faults += faults_of(error)
    else:
        if not faults:
            return parsed
    too_large = any(fault.code in TOO_LARGE for fault in faults)
    raise Refused(
        413 if too_large else 422, "too_large" if too_large else "invalid", "The body has faults.", faults
    )


_SURROGATE = Fault("", "lone_surrogate", "A string holds a surrogate without its other half.")


def _too_deep(limit: int) -> Fault:
    return Fault("", "too_deep", f"A JSON value may be nested {limit} deep.")


class _Shape:
    """The fields as pydantic checks them: verbatim ones left as they came, bodies and lists of them gone into.

    A fault costs pydantic as much as many good values. So a list of too many is not gone into, and nothing more is once
    there are more faults than are told.
    """

    def __init__(self, limits: Limits, faults: list[Fault]) -> None:
        """`faults` gets what pydantic does not see: names given twice."""
        self._limits, self._faults = limits, faults
        self._left = MOST_FAULTS + 1

    def of(self, cls: type[Body], value: msgspec.Raw, pointer: str) -> object:
        found = json_text.members(value)
        if found is None:
            return json_text.scalar(value)
        fields = cls.model_fields
        shaped = {
            name: self._field(cls, name, found[name], f"{pointer}/{name}") for name in fields if name in found
        }
        unknown = list(islice((name for name in found if name not in fields), self._left))
        self._left -= len(unknown)
        if self._left and json_text.has_repeated_names(value, found):
            self._left -= 1
            self._faults.append(Fault(pointer, "repeated_name", "A name may be given once."))
        return shaped | dict.fromkeys(unknown)

    def _field(self, cls: type[Body], name: str, value: msgspec.Raw, pointer: str) -> object:
        if name in cls.verbatim:
            return value
        inner = cls.nested.get(name)
        if inner is None:
            return json_text.plain(value)
        values = json_text.items(value, self._limits.events)
        if values is None:
            return self.of(inner, value, pointer)
        return values if len(values) > self._limits.events else self._list(inner, values, pointer)

    def _list(self, cls: type[Body], values: list[msgspec.Raw], pointer: str) -> list[object]:
        shaped: list[object] = []
        for value in values:
            if self._left:
                shaped.append(self.of(cls, value, f"{pointer}/{len(shaped)}"))
        return shaped


async def _gunzip(chunks: AsyncIterator[bytes], limit_bytes: int) -> AsyncIterator[bytes]:
    """Decompress as it arrives, and never more than one byte past the limit.

    What comes to nothing when decompressed is bounded too: gzip has empty blocks, and as many as one likes.
    """
    members, arrived = _GzipMembers(limit_bytes + 1), 0
    try:
        async for chunk in chunks:
            arrived += len(chunk)
            if arrived > limit_bytes + _GZIP_OVERHEAD:
                raise _too_large(limit_bytes)
            yield members.decompress(chunk)
            if members.room == 0:
                return
    except zlib.error as error:
        raise _bad_gzip() from error
    if not members.complete:
        raise _bad_gzip()


class _GzipMembers:
    """A gzip body is one member or several, one behind the other (RFC 1952 §2.2). `room`: bytes that may still come out."""

    def __init__(self, room: int) -> None:
        self.room = room
        self._left = _GZIP_MEMBERS
        self._inflate = zlib.decompressobj(_GZIP)

    @property
    def complete(self) -> bool:
        return self._inflate.eof

    def decompress(self, data: bytes) -> bytes:
        plain = bytearray()
        while data and self.room:
            if self._inflate.eof:
                self._begin_another()
            piece = self._inflate.decompress(data, self.room)
            self.room -= len(piece)
            plain += piece
            data = self._inflate.unused_data
        return bytes(plain)

    def _begin_another(self) -> None:
        self._left -= 1
        if self._left == 0:
            raise zlib.error
        self._inflate = zlib.decompressobj(_GZIP)


def _too_large(limit_bytes: int) -> Refused:
    return Refused(413, "request_too_large", f"A request's body may be {limit_bytes} bytes.")


def _bad_gzip() -> Refused:
    return Refused(400, "bad_gzip", "The body is no gzip data, not all of it, or more than it.")


def _require_json_type(content_type: str) -> None:
    if content_type == "application/json":
        return
    media_type, _, parameters = content_type.partition(";")
    charset = parameters.strip().lower().replace('"', "").replace(" ", "")
    if media_type.strip().lower() != "application/json" or charset not in {"", "charset=utf-8"}:
        raise Refused(415, "unsupported_media_type", "Content-Type is application/json, in UTF-8.")
