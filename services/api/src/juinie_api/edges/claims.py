"""`/v1/claims` and the heartbeat: how a worker gets a run, and how it keeps it."""

from fastapi import APIRouter
from starlette.responses import Response

from juinie_api import telemetry
from juinie_api.core.claim import Claim, Claimant, Claimed
from juinie_api.core.lease import heartbeat
from juinie_api.edges.answer_schemas import ClaimAnswer, HeartbeatAnswer
from juinie_api.edges.answers import json_answer, lease_members, run_members
from juinie_api.edges.call import LEASE, Authenticated, Services
from juinie_api.edges.documents import documented
from juinie_api.edges.schemas import ClaimBody, HeartbeatBody
from juinie_shared.domain.runs import Scope
from juinie_shared.domain.times import format_time
from juinie_shared.runtime.logs import get_logger
from juinie_shared.runtime.tracing import current_traceparent

router = APIRouter(tags=["workers"])

_log = get_logger("api")


@router.post(
    "/v1/claims",
    summary="Claim a run",
    **documented(
        {200: ("The oldest run that waited for one of the agents.", ClaimAnswer), 204: ("None waits.", None)},
        413, 415, 422, body=ClaimBody,
    ),
)  # fmt: skip
async def claim_run(call: Authenticated) -> Response:
    body = (await call.body(ClaimBody))[0]  # its text is not kept while the worker waits
    call.let_body_go()
    call.require(Scope.WRITE)
    claimant = Claimant(body.worker_id, body.lease_seconds)
    claim = Claim(call.principal.tenant_id, body.agents, claimant, current_traceparent())
    with call.waiting(body.wait_seconds):
        claimed = await call.in_parts(
            body.wait_seconds,
            lambda seconds: call.services.desk.claim(claim, seconds, call.gone),
            lambda claimed: claimed is not None,
        )
    if claimed is None:
        await call.look_again()
        return Response(status_code=204)
    _tell(call.services, claimed)
    content = {
        "run": run_members(claimed.run, call.services.stream_url),
        "lease": lease_members(claimed.lease),
    }
    return json_answer(content)


def _tell(services: Services, claimed: Claimed) -> None:
    services.wake_publisher()
    services.metrics.claimed_runs.labels("claim").inc()
    _log.info(telemetry.CLAIMED, run_id=str(claimed.run.run_id), attempt=claimed.lease.attempt)


@router.post(
    "/v1/runs/{run_id}/heartbeat",
    summary="Renew a lease",
    **documented(
        {200: ("It is good until then.", HeartbeatAnswer)},
        404, 409, 413, 415, 422, body=HeartbeatBody, body_required=False, headers=(LEASE,),
    ),
)  # fmt: skip
async def renew_lease(call: Authenticated) -> Response:
    body, _ = await call.body(HeartbeatBody, optional=True)
    token = call.required_lease()
    call.require(Scope.WRITE)
    services = call.services
    renewed = await heartbeat(
        services.pools, services.lanes, call.run_id(), call.principal.tenant_id, token, body.lease_seconds
    )
    content = {"expires_at": format_time(renewed.expires_at), "cancel_requested": renewed.cancel_requested}
    return json_answer(content)
