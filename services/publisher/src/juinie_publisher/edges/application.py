"""The publisher as a FastStream application: its lifecycle, its health endpoints, and the AsyncAPI document.

The relay is no FastStream handler: a handler costs more a message than all the rest of the way. So the broker here
describes the topic and makes no connection (`consumer_only`); the producer is in `edges/kafka.py`.
"""

import json
from collections.abc import Mapping
from typing import Any

from faststream.asgi import AsgiFastStream
from faststream.kafka import KafkaBroker
from faststream.specification import AsyncAPI
from pydantic import BaseModel, ConfigDict, Field

from juinie_shared.contracts.dead_letter import REASON_HEADER
from juinie_shared.contracts.names import DEAD_LETTERS_TOPIC, RUN_EVENTS_TOPIC
from juinie_shared.runtime.probes import AsgiApp

_ABOUT = (
    "Every run event that Juinie has committed, as one Kafka record each. "
    "At least once: consumers drop what they have seen, by `ce_id`. "
    "In seq order for each key, with three exceptions: dead letters that were requeued, republished records, and a "
    "topic whose partitions grew. The record's timestamp is the broker's; the event's own time is `ce_time`."
)
_TIME = "2026-11-23T12:00:00.123456Z"
_RUN_ID = "0193f2a4-7c1e-7b2a-9c3d-5e6f70819283"


class RunEvent(BaseModel):
    """One run event: the same JSON, byte for byte, as the `data` of its SSE frame."""

    model_config = ConfigDict(extra="allow")

    seq: int = Field(ge=1, description="Position in its run: 1, 2, 3… without gap.", examples=[43])
    type: str = Field(
        pattern=r"^[A-Za-z0-9._/-]{1,128}$", examples=["TEXT_MESSAGE_CONTENT"],
        description="What happened. `run.` is Juinie's own: run.created, run.started, run.lease_expired, "
        "run.cancel_requested, run.finished.",
    )  # fmt: skip
    time: str = Field(description="RFC 3339, UTC, six digits of a second.", examples=[_TIME])
    data: Any = Field(description="Any JSON value, kept as it came in.", examples=[{"delta": "Hel"}])


def _header(description: str, example: str, **more: Any) -> dict[str, Any]:
    return {"type": "string", "description": description, "examples": [example], **more}


_HEADERS: dict[str, Any] = {
    "type": "object",
    "description": "CloudEvents 1.0, binary mode. Values are UTF-8. Headers not named here are to be ignored.",
    "required": [
        "ce_specversion", "ce_id", "ce_source", "ce_type", "ce_subject", "ce_time", "content-type",
    ],
    "properties": {
        "ce_specversion": _header("CloudEvents version.", "1.0", const="1.0"),
        "ce_id": _header("`{run_id}:{seq}`: the same for every copy of a record.", f"{_RUN_ID}:43"),
        "ce_source": _header(
            "`/juinie/tenants/{tenant_id}`.", "/juinie/tenants/0193f2a4-0000-7000-8000-000000000001"
        ),
        "ce_type": _header("The event's type.", "TEXT_MESSAGE_CONTENT"),
        "ce_subject": _header("The run_id.", _RUN_ID),
        "ce_time": _header("When it happened: RFC 3339, UTC.", _TIME),
        "content-type": _header("Of the value.", "application/json", const="application/json"),
        "traceparent": _header(
            "W3C trace context of the span that appended the event.",
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
        ),
    },
}  # fmt: skip
_DEAD_HEADERS: dict[str, Any] = {
    **_HEADERS,
    "required": [*_HEADERS["required"], REASON_HEADER],
    "properties": {
        **_HEADERS["properties"],
        REASON_HEADER: _header("Why it could not be sent.", "message_too_large"),
    },
}
_KEY: dict[str, Any] = {
    "type": "string",
    "format": "uuid",
    "description": "The run_id, 36 characters. The partition is murmur2 of it, as Kafka's default partitioner has it.",
    "examples": [_RUN_ID],
}


_ABOUT_DEAD = (
    "Run events that could not be sent as they are, each with the reason in the header `juinie_reason`. "
    "At least once. The value is the event's JSON, or null where that is too large for this topic, too: the API has it, "
    "by `ce_subject` and the seq in `ce_id`. What becomes of a dead letter afterwards is not told here."
)


def make_application(
    topic: str, dead_letter_topic: str, bootstrap_servers: str, routes: Mapping[str, AsgiApp] | None = None
) -> AsgiFastStream:
    """The application, not started. `routes`: ASGI applications by path."""
    broker = KafkaBroker(
        bootstrap_servers.split(","), consumer_only=True, logger=None, specification_url="kafka:9092",
        description="Your Kafka cluster.",
    )  # fmt: skip
    broker.publisher(topic, title="run-events", description=_ABOUT, schema=RunEvent)
    broker.publisher(dead_letter_topic, title="dead-letters", description=_ABOUT_DEAD, schema=RunEvent | None)
    return AsgiFastStream(
        broker,
        asgi_routes=list((routes or {}).items()),
        logger=None,
        specification=AsyncAPI(
            title="Juinie run events", version="1.0.0", description=_ABOUT, license={"name": "Apache-2.0"}
        ),
    )


def asyncapi_document() -> str:
    """The AsyncAPI document of the topics: the same text for the same code."""
    application = make_application(RUN_EVENTS_TOPIC, DEAD_LETTERS_TOPIC, "kafka:9092")
    document: dict[str, Any] = application.schema.to_specification().to_jsonable()
    messages: dict[str, Any] = document["components"]["messages"]
    _complete(messages["run-events:Message"], "One run event.", _HEADERS)
    _complete(messages["dead-letters:Message"], "One run event that could not be sent.", _DEAD_HEADERS)
    return json.dumps(document, indent=2, sort_keys=True, ensure_ascii=False) + "\n"


def _complete(message: dict[str, Any], summary: str, headers: dict[str, Any]) -> None:
    """What FastStream cannot know."""
    del message["correlationId"]  # FastStream's own header, which the relay does not write
    message |= {
        "summary": summary,
        "headers": headers,
        "contentType": "application/json",
        "bindings": {"kafka": {"key": _KEY, "bindingVersion": "0.5.0"}},
    }
