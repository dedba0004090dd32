"""JSON answers, in which what clients sent as JSON text appears as it came."""

from datetime import datetime

import msgspec
from starlette.responses import Response

from juinie_api.core.lease import Lease
from juinie_api.core.page import EventPage
from juinie_api.core.run import Run
from juinie_shared.domain.times import format_time

MEDIA_TYPE = "application/json"
REPLAYED = {"Idempotency-Replayed": "true"}


def json_answer(content: object, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    return Response(msgspec.json.encode(content), status, headers, MEDIA_TYPE)


def run_answer(
    run: Run, stream_url: str, status: int = 200, headers: dict[str, str] | None = None
) -> Response:
    return json_answer(run_members(run, stream_url), status, headers)


def run_members(run: Run, stream_url: str) -> dict[str, object]:
    """A Run, in the order of its members on the wire. One from a list has no input and output."""
    payload = {"input": _verbatim(run.input), "output": _verbatim(run.output)} if run.whole else {}
    return {
        "run_id": run.run_id,
        "agent": run.agent,
        "thread_id": run.thread_id,
        "status": run.status.value,
        **payload,
        "error": _verbatim(run.error),
        "metadata": _verbatim(run.metadata),
        "last_seq": run.last_seq,
        "attempt": run.attempt,
        "cancel_requested": run.cancel_requested,
        "created_at": format_time(run.created_at),
        "started_at": _time(run.started_at),
        "finished_at": _time(run.finished_at),
        "deadline_at": format_time(run.deadline_at),
        "stream_url": f"{stream_url}/v1/runs/{run.run_id}/stream",
    }


def lease_members(lease: Lease) -> dict[str, object]:
    return {"token": lease.token, "attempt": lease.attempt, "expires_at": format_time(lease.expires_at)}


def page_members(page: EventPage) -> dict[str, object]:
    return {
        "events": [_verbatim(event) for event in page.events],
        "next_after_seq": page.next_after_seq,
        "last_seq": page.last_seq,
        "up_to_date": page.up_to_date,
        "finished": page.finished,
        "reset": page.reset,
    }


def _verbatim(text: str | None) -> msgspec.Raw | None:
    return None if text is None else msgspec.Raw(text.encode())


def _time(moment: datetime | None) -> str | None:
    return None if moment is None else format_time(moment)
