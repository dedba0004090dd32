"""What a client asks for, read from its HTTP request. Everything that is wrong for good is found here, or in auth."""

from typing import Any, Literal
from urllib.parse import parse_qsl

import msgspec

from juinie_shared.contracts.sse import MEDIA_TYPE
from juinie_shared.domain.errors import NotAuthenticated, Permanent
from juinie_shared.domain.events import is_event_type
from juinie_shared.domain.ids import Seq
from juinie_shared.domain.positions import START, parse_after_seq, parse_position
from juinie_shared.runtime.accept import accepts
from juinie_shared.runtime.problems import Fault

MOST_TYPES = 100

_NO_BODY = ["0"]
_PARAMETERS = frozenset({"after_seq", "types", "token"})
_HEADERS = frozenset(
    {b"authorization", b"x-api-key", b"last-event-id", b"transfer-encoding", b"content-length", b"accept"}
)


class BadRequest(Permanent):
    """The request cannot be read as it is."""

    code = "bad_request"

    def __init__(self, faults: list[Fault]) -> None:
        self.faults = faults
        super().__init__()


class NotAcceptable(Permanent):
    """This route answers text/event-stream only. Accept it."""

    code = "not_acceptable"


class Credential(msgspec.Struct, frozen=True):
    """An API key (of a header) or a stream token (`?token=`)."""

    text: str
    is_token: bool


class Ask(msgspec.Struct, frozen=True):
    """From where, and which types (None = all)."""

    position: Seq | Literal["tail"]
    types: frozenset[str] | None


class StreamRequest:
    """One request, taken apart. `credential` and `ask` raise what is wrong with them."""

    def __init__(self, scope: dict[str, Any]) -> None:
        self._headers, self._query = dict[bytes, list[str]](), dict[str, list[str]]()
        for name, value in scope["headers"]:
            if name in _HEADERS:
                self._headers.setdefault(name, []).append(value.decode("latin-1").strip())
        for name, value in parameters(scope["query_string"].decode("latin-1")):
            self._query.setdefault(name, []).append(value)

    def credential(self) -> Credential:
        """The one credential that came along.

        Raises:
            NotAuthenticated: none, or none that we know.
            BadRequest: more than one, and nobody says which counts.
        """
        bearers, keys = self._headers.get(b"authorization", ()), self._headers.get(b"x-api-key", ())
        tokens = self._query.get("token", ())
        if len(bearers) + len(keys) + len(tokens) > 1:
            faults = [
                Fault(name, "duplicate", "Send this header once.")
                for name, sent in (("authorization", bearers), ("x-api-key", keys))
                if len(sent) > 1
            ]
            raise BadRequest(
                faults or [Fault("token", "ambiguous", "Send one credential: a header or `token`.")]
            )
        if tokens:
            return Credential(tokens[0], is_token=True)
        key = _bearer(bearers[0]) if bearers else keys[0] if keys else ""
        if not key:
            raise NotAuthenticated
        return Credential(key, is_token=False)

    def ask(self) -> Ask:
        """What is asked for.

        Raises:
            BadRequest: unknown or repeated parameters, event types that cannot be, a header sent twice, a body.
            BadPosition: a position that is none.
            NotAcceptable: `Accept` excludes event streams.
        """
        headers = self._headers
        types = self._query["types"][0] if "types" in self._query else None
        faults = [*self._parameter_faults(), *_type_faults(types)]
        if len(headers.get(b"last-event-id", ())) > 1:
            faults.append(Fault("last-event-id", "duplicate", "Send this header once."))
        if b"transfer-encoding" in headers or headers.get(b"content-length", _NO_BODY) != _NO_BODY:
            faults.append(Fault("body", "unexpected_body", "Send no body: it would be ignored."))
        if faults:
            raise BadRequest(faults)
        position = self._position()
        if b"accept" in headers and not accepts(MEDIA_TYPE, headers[b"accept"]):
            raise NotAcceptable
        return Ask(position, None if types is None else frozenset(types.split(",")))

    def _position(self) -> Seq | Literal["tail"]:
        """`Last-Event-ID` over `after_seq`: EventSource repeats its first URL. An empty header says nothing."""
        asked = parse_position(self._query["after_seq"][0]) if "after_seq" in self._query else START
        last_event_id = self._headers[b"last-event-id"][0] if b"last-event-id" in self._headers else ""
        return parse_after_seq(last_event_id) if last_event_id else asked

    def _parameter_faults(self) -> list[Fault]:
        faults = [
            Fault(name, "duplicate", "Send this query parameter once.")
            for name, values in sorted(self._query.items())
            if len(values) > 1 and name in _PARAMETERS
        ]
        if not self._query.keys() <= _PARAMETERS:
            unknown = "This route takes after_seq, types and token."
            return [Fault("query", "unknown_parameter", unknown), *faults]
        return faults


def parameters(query: str) -> list[tuple[str, str]]:
    """As `parse_qsl` has them, which most queries need not go through: nothing is escaped in one that has a position alone."""
    name, _, value = query.partition("=")
    if name == "after_seq" and value.isalnum():
        return [(name, value)]
    return parse_qsl(query, keep_blank_values=True, errors="replace")


def _bearer(authorization: str) -> str:
    scheme, _, key = authorization.partition(" ")
    return key.strip() if scheme.lower() == "bearer" else ""


def _type_faults(types: str | None) -> list[Fault]:
    if types is None or (types.count(",") < MOST_TYPES and all(map(is_event_type, types.split(",")))):
        return []
    text = f"At most {MOST_TYPES} event types, comma-separated: 1 to 128 of A-Z a-z 0-9 . _ - / each."
    return [Fault("types", "bad_type", text)]
