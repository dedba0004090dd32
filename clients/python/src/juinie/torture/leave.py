"""What the key may do besides writing and watching. What it may not is told, in a line, and left out."""

from collections.abc import Coroutine
from dataclasses import dataclass, field
from typing import Any

from juinie.client import Client
from juinie.errors import Refused

_RUN_GOES_ON = "run_not_finished"


@dataclass
class Leave:
    """`left_out` says what is not tried, and why."""

    tokens: bool = True
    deletes: bool = True
    left_out: list[str] = field(default_factory=list[str])


async def leave_of(client: Client, run_id: str) -> Leave:
    """Asked of a run of one's own that goes on, which is therefore not deleted (409)."""
    token = await _refusal(client.stream_token(run_id, 1))
    delete = await _refusal(client.api.send("DELETE", f"/v1/runs/{run_id}"))
    if delete is not None and delete.code == _RUN_GOES_ON:
        delete = None
    told = {"stream tokens": token, "deletions": delete}
    left_out = [f"left out: {what}, because of {refusal}" for what, refusal in told.items() if refusal]
    return Leave(token is None, delete is None, left_out)


async def _refusal(asking: Coroutine[Any, Any, object]) -> Refused | None:
    try:
        await asking
    except Refused as refusal:
        return refusal
    return None
