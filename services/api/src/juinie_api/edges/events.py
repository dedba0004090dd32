"""`/v1/runs/{run_id}/events`: append, and read in pages."""

from hashlib import sha256
from typing import Annotated

from fastapi import APIRouter
from pydantic import AfterValidator, Field, WithJsonSchema
from pydantic_core import PydanticCustomError
from starlette.responses import Response

from juinie_api.core.append import Append
from juinie_api.core.page import EventPage, PageRequest, wait_for_page
from juinie_api.edges.answer_schemas import AppendAnswer, EventPageAnswer
from juinie_api.edges.answers import REPLAYED, json_answer, page_members
from juinie_api.edges.append_body import read_append
from juinie_api.edges.call import (
    DECIMAL,
    IDEMPOTENCY_KEY,
    INTEGER,
    LEASE,
    Authenticated,
    Query,
    once,
)
from juinie_api.edges.documents import documented
from juinie_api.edges.schemas import AppendBody
from juinie_shared.domain.events import is_event_type
from juinie_shared.domain.positions import parse_after_seq
from juinie_shared.domain.runs import Scope
from juinie_shared.runtime.tracing import current_traceparent

router = APIRouter(tags=["events"])


def _types(text: str) -> str:
    if not all(is_event_type(part) for part in text.split(",")) or text.count(",") >= 100:
        raise PydanticCustomError("bad_types", "Is at most 100 event types, with commas between.")
    return text


class EventsQuery(Query):
    """Which events, and how long to wait for the first."""

    after_seq: Annotated[str | None, WithJsonSchema({"type": "integer", "minimum": -1, "default": 0})] = None
    limit: Annotated[int, Field(ge=1, le=1000), INTEGER] = 500
    types: Annotated[str, AfterValidator(_types)] | None = None
    wait_seconds: Annotated[float, Field(ge=0, le=30), DECIMAL] = 0


@router.post(
    "/v1/runs/{run_id}/events",
    summary="Append events",
    **documented(
        {201: ("Committed.", AppendAnswer)},
        404, 409, 413, 415, 422, body=AppendBody, headers=(IDEMPOTENCY_KEY, LEASE),
    ),
)  # fmt: skip
async def append_events(call: Authenticated) -> Response:
    body = read_append(await call.raw_body(), call.services.limits)
    key = once(call.idempotency_key(), "append", body.canonical)
    call.require(Scope.WRITE)
    run_id = call.run_id()
    append = Append(
        run_id, call.principal.tenant_id, body.events, starts=body.start, lease=call.lease(),
        once=key, traceparent=current_traceparent(), events_per_run=call.events_per_run(),
    )  # fmt: skip
    async with call.charged(len(body.events), len(body.canonical)) as charge:
        appended = await call.services.appender.commit(append)
        charge.for_nothing = appended.replayed
    if not appended.replayed:
        call.services.metrics.appended_events.inc(len(body.events))
    content = {
        "first_seq": appended.first_seq,
        "last_seq": appended.last_seq,
        "status": appended.status.value,
        "cancel_requested": appended.cancel_requested,
    }
    return json_answer(content, 201, REPLAYED if appended.replayed else None)


@router.get(
    "/v1/runs/{run_id}/events",
    summary="Read events after a position",
    **documented(
        {200: ("A page of events.", EventPageAnswer), 304: ("The page with this ETag.", None)},
        404, 410, 422, query=EventsQuery, headers=("If-None-Match",),
    ),
)  # fmt: skip
async def read_events(call: Authenticated) -> Response:
    query = call.query(EventsQuery)
    after_seq = parse_after_seq(query.after_seq)
    call.require(Scope.READ)
    types = query.types.split(",") if query.types is not None else None
    wanted = PageRequest(
        call.run_id(),
        call.principal.tenant_id,
        after_seq,
        query.limit,
        call.services.limits.page_bytes,
        types,
    )
    services = call.services
    with call.waiting(query.wait_seconds):
        page = await call.in_parts(
            query.wait_seconds,
            lambda seconds: wait_for_page(call.pool, services.waker, wanted, seconds),
            lambda page: bool(page.events or page.finished or page.reset),
        )
    await call.look_again()
    return (
        _cacheable(call.header("if-none-match"), wanted, page)
        if page.finished
        else json_answer(page_members(page))
    )


def _cacheable(if_none_match: str | None, wanted: PageRequest, page: EventPage) -> Response:
    """A page of a finished run never changes: who has it already gets no second copy."""
    etag = _etag(wanted, page)
    headers = {"ETag": etag, "Cache-Control": "private, no-cache"}
    known = [part.strip().removeprefix("W/") for part in (if_none_match or "").split(",")]
    if etag in known or "*" in known:
        return Response(status_code=304, headers=headers)
    return json_answer(page_members(page), headers=headers)


def _etag(wanted: PageRequest, page: EventPage) -> str:
    """Of what the page is made from: the run, its last seq, and what was asked for."""
    types = ",".join(wanted.types) if wanted.types is not None else None
    key = (str(wanted.run_id), page.last_seq, wanted.after_seq, wanted.limit, wanted.max_bytes, types)
    return f'"{sha256(repr(key).encode()).hexdigest()[:32]}"'
