"""Request bodies: checked and documented by the same classes.

Fields of type `JsonText` hold any JSON value, which is kept verbatim: see `edges/json_text.py`. Limits come from the
settings, in the validation's context.
"""

from typing import Annotated, Any, ClassVar, Literal, Self, cast, override
from uuid import UUID

import msgspec
from pydantic import (
    AfterValidator,
    AwareDatetime,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    GetJsonSchemaHandler,
    ValidationInfo,
    WithJsonSchema,
    model_validator,
)
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema, PydanticCustomError

from juinie_api.edges import json_text
from juinie_api.edges.limits import Limits
from juinie_shared.domain.events import RESERVED_PREFIX, is_event_type
from juinie_shared.domain.ids import parse_run_id
from juinie_shared.domain.times import parse_time

LEASE_SECONDS = 30

ANY_JSON: dict[str, Any] = {"description": "Any JSON value. Kept and given back as it came in."}


def _limits(info: ValidationInfo) -> Limits:
    return info.context if isinstance(info.context, Limits) else Limits()


def _json(field: Literal["event_bytes", "payload_bytes", "metadata_bytes"]) -> BeforeValidator:
    """JSON text of at most so many bytes, nested as deep as allowed."""

    def check(value: object, info: ValidationInfo) -> object:
        if not isinstance(value, msgspec.Raw):
            return value
        limits, text = _limits(info), bytes(value)
        if len(text) > (limit := getattr(limits, field)):
            raise PydanticCustomError("value_too_large", "May be {limit} bytes.", {"limit": limit})
        if json_text.depth(text) > limits.depth:
            raise PydanticCustomError("too_deep", "May be nested {limit} deep.", {"limit": limits.depth})
        return text.decode()

    return BeforeValidator(check)


def _name(value: str, info: ValidationInfo) -> str:
    limit = _limits(info).name_chars
    if not 0 < len(value) <= limit:
        raise PydanticCustomError("bad_length", "Has 1 to {limit} characters.", {"limit": limit})
    if any(ord(char) < 32 or 0xD800 <= ord(char) < 0xE000 for char in value):
        raise PydanticCustomError("control_character", "Has no control characters.")
    return value


def _event_type(value: str) -> str:
    if value.startswith(RESERVED_PREFIX):
        raise PydanticCustomError("reserved_type", "Types that begin with run. are Juinie's own.")
    if not is_event_type(value):
        raise PydanticCustomError("bad_type", "Has 1 to 128 characters of A-Z a-z 0-9 . _ - /")
    return value


def _moment(value: object) -> object:
    moment = parse_time(value) if isinstance(value, str) else None
    if moment is None:
        raise PydanticCustomError("bad_time", "Is a time as RFC 3339 has it, with an offset.")
    return moment


def _run_id(value: object) -> object:
    run_id = parse_run_id(value) if isinstance(value, str) else None
    if run_id is None:
        raise PydanticCustomError("bad_run_id", "Is a UUID, in its 36 characters.")
    return run_id


def _object(value: object) -> object:
    if isinstance(value, msgspec.Raw) and not bytes(value).startswith(b"{"):
        raise PydanticCustomError("not_an_object", "Is a JSON object.")
    return value


def _event_count(value: object, info: ValidationInfo) -> object:
    """Before the events themselves: too many are one fault, whatever they are."""
    if _length(value) > (limit := _limits(info).events):
        raise PydanticCustomError("too_many_events", "At most {limit} events.", {"limit": limit})
    return value


def _length(value: object) -> int:
    return len(cast("list[object]", value)) if isinstance(value, list) else 0


def _is_object(schema: dict[str, Any]) -> WithJsonSchema:
    return WithJsonSchema({**schema, "type": "object"})


type Name = Annotated[
    str, AfterValidator(_name), WithJsonSchema({"type": "string", "minLength": 1, "maxLength": 256})
]
type Moment = Annotated[
    AwareDatetime, BeforeValidator(_moment), WithJsonSchema({"type": "string", "format": "date-time"})
]
type RunIdText = Annotated[
    UUID, BeforeValidator(_run_id), WithJsonSchema({"type": "string", "format": "uuid"})
]
type LeaseSeconds = Annotated[int, Field(ge=5, le=3600)]
type EventData = Annotated[str, _json("event_bytes"), WithJsonSchema(ANY_JSON)]
type Payload = Annotated[str, _json("payload_bytes"), WithJsonSchema(ANY_JSON)]
type Metadata = Annotated[str, _json("metadata_bytes"), BeforeValidator(_object), _is_object(ANY_JSON)]
type EventType = Annotated[
    str,
    AfterValidator(_event_type),
    WithJsonSchema({"type": "string", "pattern": "^[A-Za-z0-9._/-]{1,128}$"}),
]


class Body(BaseModel):
    """A request's body. `verbatim`: fields kept as JSON text; `nested`: fields that hold a body, or a list of some."""

    model_config = ConfigDict(extra="forbid", strict=True, hide_input_in_errors=True)

    verbatim: ClassVar[frozenset[str]] = frozenset()
    nested: ClassVar[dict[str, type["Body"]]] = {}

    @classmethod
    @override
    def __get_pydantic_json_schema__(
        cls, core_schema: CoreSchema, handler: GetJsonSchemaHandler, /
    ) -> JsonSchemaValue:
        """What a field that is kept as text has by default, as the JSON that a client would send."""
        schema = super().__get_pydantic_json_schema__(core_schema, handler)
        properties = handler.resolve_ref_schema(schema).get("properties", {})
        for name in cls.verbatim & {name for name, field in properties.items() if "default" in field}:
            properties[name]["default"] = msgspec.json.decode(properties[name]["default"])
        return schema


class EventBody(Body):
    """One event to append."""

    verbatim = frozenset({"data"})

    type: EventType = Field(description="What happened. `run.` is reserved.")
    data: EventData = "null"
    time: Moment | None = Field(None, description="When it happened; the database's clock when absent.")


type Events = Annotated[list[EventBody], BeforeValidator(_event_count)]


class BirthClaim(Body):
    """A claim on a run that is being created: its creator works on it itself."""

    worker_id: Name = Field(description="Who works on it; shown in `run.started`.")
    lease_seconds: LeaseSeconds = Field(
        LEASE_SECONDS, description="How long the lease is good without a renewal."
    )


class CreateBody(Body):
    """A run to create."""

    verbatim = frozenset({"input", "metadata"})
    nested = {"claim": BirthClaim}

    agent: Name = Field(description="Which agent is to do it.")
    input: Payload = "null"
    run_id: RunIdText | None = Field(None, description="The run's id; a UUIDv7 is made when absent.")
    thread_id: Name | None = Field(None, description="A label of yours that groups runs.")
    metadata: Metadata = "{}"
    timeout_seconds: int | None = Field(
        None, ge=1, le=31_536_000, description="The run ends as `timeout` after this long."
    )
    idle_timeout_seconds: int | None = Field(
        None,
        ge=1,
        le=31_536_000,
        description="A running run without a lease ends as `error` after so long without an event.",
    )
    claim: BirthClaim | None = Field(None, description="Start the run at once, with a lease for its creator.")


class AppendBody(Body):
    """Events to append."""

    nested = {"events": EventBody}

    events: Events = Field(min_length=1)
    start: bool = Field(True, description="Whether this starts a run that nobody has started yet.")


class FinishBody(Body):
    """How a run ends."""

    verbatim = frozenset({"output", "error"})
    nested = {"events": EventBody}

    status: Literal["success", "error", "cancelled"]
    output: Payload = "null"
    error: Payload = "null"
    events: Events = []
    start: bool = Field(
        True, description="Whether a run that nobody has started yet is started first. A success always is."
    )


class CancelBody(Body):
    """Why a run is to stop."""

    reason: Name | None = None


class ClaimBody(Body):
    """A worker that wants a run."""

    agents: list[Name] = Field(min_length=1, max_length=100, description="Which agents it can be.")
    worker_id: Name = Field(description="Who works on it; shown in `run.started`.")
    lease_seconds: LeaseSeconds = Field(
        LEASE_SECONDS, description="How long the lease is good without a renewal."
    )
    wait_seconds: float = Field(0, ge=0, le=30, description="How long to wait for a run where there is none.")


class HeartbeatBody(Body):
    """How long the lease is good from now on."""

    lease_seconds: LeaseSeconds | None = Field(None, description="As before, when absent.")


class EmptyBody(Body):
    """Nothing: an empty object, or no body at all."""


class RepublishRunBody(Body):
    """Which events of the run: both ends included. What is not kept any more, or not there yet, is left out."""

    from_seq: int = Field(ge=1, lt=10**18)
    to_seq: int = Field(ge=1, lt=10**18)

    @model_validator(mode="after")
    def _in_order(self) -> Self:
        if self.from_seq > self.to_seq:
            raise PydanticCustomError("bad_range", "from_seq is at most to_seq.")
        return self


class RepublishBody(Body):
    """Of which runs: those created after one moment and before another."""

    created_after: Moment
    created_before: Moment

    @model_validator(mode="after")
    def _in_order(self) -> Self:
        if self.created_after >= self.created_before:
            raise PydanticCustomError("bad_range", "created_after is before created_before.")
        return self


class StreamTokenBody(Body):
    """How long a stream token is to be good."""

    ttl_seconds: int = Field(600, ge=1, le=3600)
