"""`/v1/threads`: what a client finds again that knows its thread, and no run id."""

from fastapi import APIRouter
from starlette.convertors import PathConvertor, register_url_convertor
from starlette.requests import Request
from starlette.responses import Response

from juinie_api.core.read import active_run
from juinie_api.edges.answer_schemas import RunAnswer
from juinie_api.edges.answers import run_answer
from juinie_api.edges.call import Authenticated, Query
from juinie_api.edges.documents import documented
from juinie_shared.domain.runs import Scope


class TextConvertor(PathConvertor):
    """Whatever may be asked for, line breaks too: what no thread can be called has no run, and is a path all the same."""

    regex = "(?s:.*)"


register_url_convertor("text", TextConvertor())
router = APIRouter(tags=["threads"])


@router.get(
    "/v1/threads/{thread_id:text}/active-run",
    summary="Read the newest run of a thread that has not ended",
    **documented({200: ("The run.", RunAnswer), 204: ("There is none.", None)}),
)
async def read_active_run(call: Authenticated, request: Request) -> Response:
    call.query(Query)
    call.require(Scope.READ)
    thread_id: str = request.path_params["thread_id"]
    run = None
    if "\x00" not in thread_id:  # no text in Postgres holds one
        run = await active_run(call.pool, call.principal.tenant_id, thread_id)
    return run_answer(run, call.services.stream_url) if run else Response(status_code=204)
