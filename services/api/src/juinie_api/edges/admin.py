"""`/v1/admin`: the outbox and its dead letters, and records sent again. Scope `admin`.

The outbox and its switch are the installation's, dead letters and runs the tenant's.
"""

import re
from typing import Annotated

from fastapi import APIRouter
from pydantic import Field
from starlette.responses import Response

from juinie_api.core.dead_letters import DeadLetter, discard, list_dead_letters, requeue
from juinie_api.core.outbox import OutboxDepth, read_depth, set_paused
from juinie_api.core.republish import Republisher
from juinie_api.edges.answer_schemas import DeadLetterAnswer, DeadLetterList, OutboxAnswer, RepublishAnswer
from juinie_api.edges.answers import json_answer
from juinie_api.edges.call import INTEGER, Authenticated, Call, Query
from juinie_api.edges.cursors import cursor_after_id, parse_id_cursor
from juinie_api.edges.documents import documented
from juinie_api.edges.schemas import EmptyBody, RepublishBody, RepublishRunBody
from juinie_shared.domain.errors import DeadLetterNotFound
from juinie_shared.domain.runs import Scope
from juinie_shared.domain.times import format_time
from juinie_shared.runtime.tracing import current_traceparent

router = APIRouter(tags=["administration"])

_ID = re.compile(r"[0-9]{1,18}")


class DeadLettersQuery(Query):
    """Which page."""

    limit: Annotated[int, Field(ge=1, le=200), INTEGER] = 50
    cursor: str | None = None


@router.get(
    "/v1/admin/outbox", summary="Read the outbox's depth", **documented({200: ("The outbox.", OutboxAnswer)})
)
async def read_outbox(call: Authenticated) -> Response:
    call.query(Query)
    call.require(Scope.ADMIN)
    return json_answer(_depth(await read_depth(call.pool)))


@router.post(
    "/v1/admin/outbox/pause",
    summary="Pause the relay",
    **documented(
        {202: ("Paused; publishers stop within two seconds.", OutboxAnswer)},
        413, 415, 422, body=EmptyBody, body_required=False,
    ),
)  # fmt: skip
async def pause_outbox(call: Authenticated) -> Response:
    return await _switch(call, paused=True)


@router.post(
    "/v1/admin/outbox/resume",
    summary="Let the relay go on",
    **documented(
        {202: ("Resumed; publishers go on within two seconds.", OutboxAnswer)},
        413, 415, 422, body=EmptyBody, body_required=False,
    ),
)  # fmt: skip
async def resume_outbox(call: Authenticated) -> Response:
    return await _switch(call, paused=False)


async def _switch(call: Call, *, paused: bool) -> Response:
    await call.body(EmptyBody, optional=True)
    call.require(Scope.ADMIN)
    return json_answer(_depth(await set_paused(call.pool, paused)), 202)


@router.get(
    "/v1/admin/outbox/dead-letters",
    summary="List dead letters",
    **documented({200: ("The newest first.", DeadLetterList)}, 422, query=DeadLettersQuery),
)
async def read_dead_letters(call: Authenticated) -> Response:
    query = call.query(DeadLettersQuery)
    before_id = parse_id_cursor(query.cursor) if query.cursor is not None else None
    call.require(Scope.ADMIN)
    page = await list_dead_letters(call.pool, call.principal.tenant_id, before_id, query.limit)
    next_cursor = cursor_after_id(page.letters[-1].id) if page.more else None
    return json_answer({"items": [_letter(letter) for letter in page.letters], "next_cursor": next_cursor})


@router.post(
    "/v1/admin/outbox/dead-letters/{id}/requeue",
    summary="Try a dead letter again",
    **documented(
        {200: ("It was one, and is an outbox row again.", DeadLetterAnswer)},
        404, 413, 415, 422, body=EmptyBody, body_required=False,
    ),
)  # fmt: skip
async def requeue_dead_letter(call: Authenticated) -> Response:
    letter_id = await _letter_id(call)
    letter = await requeue(call.pool, call.principal.tenant_id, letter_id)
    call.services.wake_publisher()
    return json_answer(_letter(letter))


@router.post(
    "/v1/admin/outbox/dead-letters/{id}/discard",
    summary="Discard a dead letter",
    **documented(
        {200: ("It was one, and Kafka never gets it.", DeadLetterAnswer)},
        404, 413, 415, 422, body=EmptyBody, body_required=False,
    ),
)  # fmt: skip
async def discard_dead_letter(call: Authenticated) -> Response:
    letter_id = await _letter_id(call)
    return json_answer(_letter(await discard(call.pool, call.principal.tenant_id, letter_id)))


@router.post(
    "/v1/admin/runs/{run_id}/republish",
    summary="Send events of a run to Kafka again",
    **documented(
        {202: ("In the outbox again: so many records.", RepublishAnswer)},
        404,
        413,
        415,
        422,
        body=RepublishRunBody,
    ),
)
async def republish_run(call: Authenticated) -> Response:
    body, _ = await call.body(RepublishRunBody)
    call.require(Scope.ADMIN)
    records = await _republisher(call).run(call.run_id(), body.from_seq, body.to_seq)
    return json_answer({"records": records}, 202)


@router.post(
    "/v1/admin/republish",
    summary="Send all events of runs to Kafka again",
    **documented(
        {202: ("In the outbox again: so many records.", RepublishAnswer)}, 413, 415, 422, body=RepublishBody
    ),
)
async def republish(call: Authenticated) -> Response:
    body, _ = await call.body(RepublishBody)
    call.require(Scope.ADMIN)
    records = await _republisher(call).created(body.created_after, body.created_before)
    return json_answer({"records": records}, 202)


def _republisher(call: Call) -> Republisher:
    services = call.services
    return Republisher(
        services.pools,
        services.lanes,
        call.principal.tenant_id,
        current_traceparent(),
        services.wake_publisher,
        call.stay,
    )


async def _letter_id(call: Call) -> int:
    """The dead letter that the path names, of a request that may ask for one. Text that is no id names none."""
    await call.body(EmptyBody, optional=True)
    call.require(Scope.ADMIN)
    text = call.path("id")
    if not _ID.fullmatch(text):
        raise DeadLetterNotFound
    return int(text)


def _letter(letter: DeadLetter) -> dict[str, object]:
    return {
        "id": letter.id,
        "run_id": letter.run_id,
        "first_seq": letter.first_seq,
        "last_seq": letter.last_seq,
        "reason": letter.reason,
        "created_at": format_time(letter.created_at),
    }


def _depth(depth: OutboxDepth) -> dict[str, object]:
    return {
        "pending": depth.pending,
        "oldest_age_seconds": depth.oldest_age_seconds,
        "paused": depth.paused,
        "shards": depth.shards,
    }
