"""The OpenAPI document: complete and the same on every build. Bodies and parameters are read by `edges/call.py`, so
what FastAPI would take from signatures is said here, from the same classes.
"""

import re
from typing import Any, cast

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from juinie_api.edges import answer_schemas, schemas
from juinie_api.edges.auth import SECURITY_SCHEMES
from juinie_api.edges.call import IDEMPOTENCY_KEY, LEASE, Query
from juinie_shared.runtime.problems import MEDIA_TYPE

_REF = "#/components/schemas/{model}"

_BODIES: tuple[type[BaseModel], ...] = (
    schemas.CreateBody, schemas.AppendBody, schemas.FinishBody, schemas.CancelBody, schemas.StreamTokenBody,
    schemas.ClaimBody, schemas.HeartbeatBody, answer_schemas.CreatedRunAnswer, answer_schemas.ClaimAnswer,
    answer_schemas.HeartbeatAnswer, answer_schemas.RunAnswer, answer_schemas.RunList, answer_schemas.AppendAnswer, answer_schemas.EventPageAnswer, answer_schemas.StreamTokenAnswer,
    schemas.EmptyBody, schemas.RepublishRunBody, schemas.RepublishBody,
    answer_schemas.OutboxAnswer, answer_schemas.DeadLetterList, answer_schemas.DeadLetterAnswer, answer_schemas.RepublishAnswer,
    answer_schemas.ProblemAnswer,
)  # fmt: skip

_PATH_PARAMETERS: dict[str, dict[str, Any]] = {
    "run_id": {"type": "string", "format": "uuid"},
    "id": {"type": "integer", "minimum": 1},
}

_HEADERS = {
    IDEMPOTENCY_KEY: "Repeating the request with the same key is answered as the first time.",
    LEASE: "The worker's lease on the run. One that is lost is refused.",
    "If-None-Match": "An ETag that this route gave.",
}

_HEADER_SCHEMAS: dict[str, dict[str, Any]] = {
    IDEMPOTENCY_KEY: {"type": "string", "minLength": 1, "maxLength": 255, "pattern": "^[ -~]+$"},
}

_REFUSALS = {
    400: "Not readable: the JSON, a header, a query parameter or a position.",
    401: "No valid API key.",
    403: "The API key lacks the scope.",
    404: "There is none, or it is another tenant's.",
    406: "`Accept` leaves out JSON.",
    409: "The run does not allow it: `code` says why.",
    410: "The events are past their retention.",
    413: "The request or a value in it is too large.",
    415: "Another content type or coding.",
    422: "Readable, but with faults: all of them are told.",
    429: "A limit of the tenant or the key is reached. Try again after `Retry-After`.",
    503: "The database is away or the run's row is locked. Try again after `Retry-After`.",
}


def documented(
    answers: dict[int, tuple[str, type[BaseModel] | None]],
    *refusals: int,
    body: type[schemas.Body] | None = None,
    body_required: bool = True,
    query: type[Query] | None = None,
    headers: tuple[str, ...] = (),
) -> dict[str, Any]:
    """The arguments that give a route its place in the document."""
    always = (400, 401, 403, 406, 422, 429, 503)
    extra: dict[str, Any] = {
        "responses": {
            **{
                str(status): {**_answer(text, model), "headers": RATE_HEADERS}
                for status, (text, model) in answers.items()
            },
            **{str(status): _refusal(status) for status in sorted({*always, *refusals})},
        },
        "security": [{name: []} for name in SECURITY_SCHEMES],
    }
    parameters = [*_query_parameters(query), *(_header_parameter(name) for name in headers)]
    if parameters:
        extra["parameters"] = parameters
    if body is not None:
        extra["requestBody"] = {
            "required": body_required,
            "content": {"application/json": {"schema": _ref(body)}},
        }
    return {"openapi_extra": extra, "status_code": min(answers), "response_model": None}


def openapi_document(app: FastAPI) -> dict[str, Any]:
    """The whole document."""
    document = get_openapi(
        title="Juinie API", version="1", description=app.description, routes=app.routes, openapi_version="3.1.0",
    )  # fmt: skip
    _, definitions = models_json_schema(
        [(model, "serialization") for model in _BODIES], ref_template=_REF, by_alias=True
    )
    document["components"] = {
        "schemas": dict(sorted(definitions["$defs"].items())),
        "securitySchemes": SECURITY_SCHEMES,
    }
    for path, operations in document["paths"].items():
        for operation in operations.values():
            operation["parameters"] = [*_path_parameters(path), *operation.get("parameters", ())]
    return document


def _path_parameters(path: str) -> list[dict[str, Any]]:
    """Read from the path: no function has them in its signature."""
    return [
        {
            "name": name,
            "in": "path",
            "required": True,
            "schema": _PATH_PARAMETERS.get(name, {"type": "string"}),
        }
        for name in re.findall(r"{(\w+)}", path)
    ]


def _ref(model: type[BaseModel]) -> dict[str, str]:
    return {"$ref": _REF.format(model=model.__name__)}


def _answer(text: str, model: type[BaseModel] | None) -> dict[str, Any]:
    if model is None:
        return {"description": text}
    return {"description": text, "content": {"application/json": {"schema": _ref(model)}}}


def _refusal(status: int) -> dict[str, Any]:
    content = {MEDIA_TYPE: {"schema": _ref(answer_schemas.ProblemAnswer)}}
    refusal: dict[str, Any] = {"description": _REFUSALS[status], "content": content}
    if status in {429, 503}:
        refusal["headers"] = {"Retry-After": _told("Seconds after which to try again.", "integer")}
    if status == 429:
        refusal["headers"] |= RATE_HEADERS
    return refusal


def _told(text: str, kind: str = "string") -> dict[str, Any]:
    return {"description": text, "schema": {"type": kind}}


RATE_HEADERS = {
    "RateLimit-Policy": _told('The limits that hold: `"tenant-requests";q=600;w=60`, with commas between.'),
    "RateLimit": _told(
        'What is left of each, and when all of it is there again: `"tenant-requests";r=12;t=34`.'
    ),
}
"""Where a limit is set, they are on every answer to who may come in."""


def _query_parameters(query: type[Query] | None) -> list[dict[str, Any]]:
    if query is None:
        return []
    described = query.model_json_schema()
    named = described.get("$defs", {})
    return [
        {
            "name": name,
            "in": "query",
            "required": False,
            "schema": {k: v for k, v in _spelled_out(schema, named).items() if k != "title"},
        }
        for name, schema in described["properties"].items()
    ]


def _spelled_out(schema: Any, named: dict[str, Any]) -> Any:
    """A schema without references: they would lead to where pydantic had put them, which is not in the document."""
    if isinstance(schema, list):
        return [_spelled_out(part, named) for part in cast("list[Any]", schema)]
    if not isinstance(schema, dict):
        return schema
    parts = cast("dict[str, Any]", schema)
    if "$ref" in parts:
        return _spelled_out(named[parts["$ref"].rpartition("/")[2]], named)
    return {key: _spelled_out(part, named) for key, part in parts.items()}


def _header_parameter(name: str) -> dict[str, Any]:
    return {
        "name": name, "in": "header", "required": False, "description": _HEADERS[name],
        "schema": _HEADER_SCHEMAS.get(name, {"type": "string"}),
    }  # fmt: skip
