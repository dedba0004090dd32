"""`/v1/runs` and what is below one run, but for its events."""

from typing import Annotated, Literal

from fastapi import APIRouter
from pydantic import Field
from starlette.responses import Response

from juinie_api.core.append import Append, Ending
from juinie_api.core.cancel import cancel
from juinie_api.core.claim import Claimant
from juinie_api.core.create import Created, NewRun, create
from juinie_api.core.delete import delete
from juinie_api.core.finish import finish
from juinie_api.core.read import list_runs, read_run
from juinie_api.core.wait import wait_for_end
from juinie_api.edges.answer_schemas import CreatedRunAnswer, RunAnswer, RunList
from juinie_api.edges.answers import REPLAYED, json_answer, lease_members, run_answer, run_members
from juinie_api.edges.append_body import new_events
from juinie_api.edges.call import (
    DECIMAL,
    IDEMPOTENCY_KEY,
    INTEGER,
    LEASE,
    Authenticated,
    Call,
    Query,
    fingerprint,
    once,
)
from juinie_api.edges.cursors import cursor_after, parse_cursor
from juinie_api.edges.documents import documented
from juinie_api.edges.schemas import CancelBody, CreateBody, FinishBody, Moment, Name
from juinie_api.store.runs import ListFilter, PageSize
from juinie_shared.domain.ids import RunId, new_run_id
from juinie_shared.domain.runs import RunStatus, Scope
from juinie_shared.runtime.tracing import current_traceparent

router = APIRouter(tags=["runs"])


class ListQuery(Query):
    """Which runs."""

    status: Literal["pending", "running", "success", "error", "cancelled", "timeout"] | None = None
    agent: Name | None = None
    thread_id: Name | None = None
    created_after: Moment | None = None
    created_before: Moment | None = None
    limit: Annotated[int, Field(ge=1, le=200), INTEGER] = 50
    cursor: str | None = None


class WaitQuery(Query):
    """How long."""

    timeout_seconds: Annotated[float, Field(ge=0, le=60), DECIMAL] = 30


@router.post(
    "/v1/runs",
    summary="Create a run",
    **documented(
        {
            201: ("The run; `Location` is its address.", CreatedRunAnswer),
            200: ("The same request made it before.", CreatedRunAnswer),
        },
        409, 413, 415, 422, body=CreateBody, headers=(IDEMPOTENCY_KEY,),
    ),
)  # fmt: skip
async def create_run(call: Authenticated) -> Response:
    body, canonical = await call.body(CreateBody)
    key = call.idempotency_key()
    call.require(Scope.WRITE)
    new = _new_run(call, body, fingerprint("create", canonical), key)
    services = call.services
    wake = services.wake_publisher if new.claimant else services.wake_workers
    async with call.charged(0, len(canonical)) as charge:
        created = await create(call.pool, wake, new)
        charge.for_nothing = not created.new
    if created.new:
        services.metrics.created_runs.inc()
        services.metrics.claimed_runs.labels("create").inc(1 if created.lease else 0)
    return _created_answer(created, services.stream_url, claims=new.claimant is not None)


def _created_answer(created: Created, stream_url: str, *, claims: bool) -> Response:
    content = run_members(created.run, stream_url)
    if claims:
        content["lease"] = lease_members(created.lease) if created.lease else None
    headers = {"Location": f"/v1/runs/{created.run.run_id}", **(REPLAYED if created.replayed else {})}
    return json_answer(content, 201 if created.new or created.replayed else 200, headers)


def _new_run(call: Call, body: CreateBody, request_fingerprint: bytes, key: str | None) -> NewRun:
    limits = call.services.limits
    return NewRun(
        run_id=RunId(body.run_id) if body.run_id else new_run_id(),
        tenant_id=call.principal.tenant_id,
        agent=body.agent,
        thread_id=body.thread_id,
        input=_null_as_none(body.input),
        metadata=body.metadata,
        timeout_seconds=body.timeout_seconds or limits.timeout_seconds,
        idle_timeout_seconds=body.idle_timeout_seconds or limits.idle_timeout_seconds,
        active_runs=call.active_runs(),
        fingerprint=request_fingerprint,
        key=key,
        traceparent=current_traceparent(),
        claimant=Claimant(body.claim.worker_id, body.claim.lease_seconds) if body.claim else None,
        key_limit=call.active_runs_of_key(),
    )


@router.get(
    "/v1/runs",
    summary="List runs, the newest first",
    **documented({200: ("A page of runs.", RunList)}, 422, query=ListQuery),
)
async def list_all(call: Authenticated) -> Response:
    query = call.query(ListQuery)
    before = parse_cursor(query.cursor) if query.cursor is not None else None
    call.require(Scope.READ)
    wanted = ListFilter(
        query.status, query.agent, query.thread_id, query.created_after, query.created_before, before
    )
    size = PageSize(query.limit, call.services.limits.page_bytes)
    page = await list_runs(call.pool, call.principal.tenant_id, wanted, size)
    items = [run_members(run, call.services.stream_url) for run in page.runs]
    return json_answer({"items": items, "next_cursor": cursor_after(page.runs[-1]) if page.more else None})


@router.get("/v1/runs/{run_id}", summary="Read a run", **documented({200: ("The run.", RunAnswer)}, 404))
async def read_one(call: Authenticated) -> Response:
    call.query(Query)
    call.require(Scope.READ)
    run = await read_run(call.pool, call.run_id(), call.principal.tenant_id)
    return run_answer(run, call.services.stream_url)


@router.delete(
    "/v1/runs/{run_id}",
    summary="Delete a finished run",
    **documented({204: ("It is gone; its id stays taken.", None)}, 404, 409),
)
async def delete_one(call: Authenticated) -> Response:
    call.query(Query)
    call.require(Scope.WRITE)
    await delete(call.services.pools, call.services.lanes, call.run_id(), call.principal.tenant_id)
    return Response(status_code=204)


@router.post(
    "/v1/runs/{run_id}/finish",
    summary="Finish a run",
    **documented(
        {200: ("The run, finished.", RunAnswer)},
        404, 409, 413, 415, 422, body=FinishBody, headers=(IDEMPOTENCY_KEY, LEASE),
    ),
)  # fmt: skip
async def finish_run(call: Authenticated) -> Response:
    body, canonical = await call.body(FinishBody)
    key = once(call.idempotency_key(), "finish", canonical)
    call.require(Scope.WRITE)
    run_id = call.run_id()
    append = Append(
        run_id, call.principal.tenant_id, new_events(body.events), lease=call.lease(), once=key,
        starts=body.start or body.status == RunStatus.SUCCESS, traceparent=current_traceparent(),
    )  # fmt: skip
    ending = Ending(RunStatus(body.status), _null_as_none(body.output), _null_as_none(body.error))
    async with call.charged(len(body.events), len(canonical)) as charge:
        finished = await finish(call.pool, call.services.appender, append, ending)
        charge.for_nothing = not finished.new
    if finished.new:
        call.services.metrics.finished_runs.labels(body.status).inc()
    return run_answer(finished.run, call.services.stream_url, headers=REPLAYED if finished.replayed else None)


@router.post(
    "/v1/runs/{run_id}/cancel",
    summary="Ask a run to stop",
    **documented(
        {200: ("It had ended already.", RunAnswer), 202: ("It was asked to stop.", RunAnswer)},
        404, 413, 415, 422, body=CancelBody, body_required=False,
    ),
)  # fmt: skip
async def cancel_run(call: Authenticated) -> Response:
    body, _ = await call.body(CancelBody, optional=True)
    call.require(Scope.WRITE)
    services = call.services
    run, had_ended = await cancel(
        services.pools, services.lanes, services.wake_publisher, call.run_id(), call.principal.tenant_id, body.reason,
        current_traceparent(),
    )  # fmt: skip
    return run_answer(run, services.stream_url, 200 if had_ended else 202)


@router.get(
    "/v1/runs/{run_id}/wait",
    summary="Wait for a run's end",
    **documented(
        {200: ("The run, finished.", RunAnswer), 202: ("It has not ended yet: ask again.", RunAnswer)},
        404, 422, query=WaitQuery,
    ),
)  # fmt: skip
async def wait_for_run(call: Authenticated) -> Response:
    query = call.query(WaitQuery)
    call.require(Scope.READ)
    services = call.services
    with call.waiting(query.timeout_seconds):
        run_id, tenant_id = call.run_id(), call.principal.tenant_id
        run = await call.in_parts(
            query.timeout_seconds,
            lambda seconds: wait_for_end(call.pool, services.waker, run_id, tenant_id, seconds),
            lambda run: run.status.terminal,
        )
    await call.look_again()
    if run.status.terminal:
        return run_answer(run, services.stream_url)
    return run_answer(run, services.stream_url, 202, {"Retry-After": "1"})


def _null_as_none(text: str) -> str | None:
    return None if text == "null" else text
