"""`/v1/runs/{run_id}/stream-tokens`: leave to watch one run, for clients that cannot send a header."""

from fastapi import APIRouter
from starlette.responses import Response

from juinie_api.core.read import read_run
from juinie_api.edges.answer_schemas import StreamTokenAnswer
from juinie_api.edges.answers import json_answer
from juinie_api.edges.call import Authenticated
from juinie_api.edges.documents import documented
from juinie_api.edges.schemas import StreamTokenBody
from juinie_shared.domain.runs import Scope
from juinie_shared.domain.times import format_time

router = APIRouter(tags=["stream tokens"])


@router.post(
    "/v1/runs/{run_id}/stream-tokens",
    summary="Make a stream token",
    **documented(
        {201: ("The token.", StreamTokenAnswer)},
        404,
        413,
        415,
        422,
        body=StreamTokenBody,
        body_required=False,
    ),
)
async def make_stream_token(call: Authenticated) -> Response:
    body, _ = await call.body(StreamTokenBody, optional=True)
    call.require(Scope.READ)
    run = await read_run(call.pool, call.run_id(), call.principal.tenant_id)
    token, expires_at = call.services.signer.sign(
        run.run_id, call.principal.tenant_id, call.principal.key_id, body.ttl_seconds
    )
    return json_answer({"token": token, "expires_at": format_time(expires_at)}, 201)
