"""One try before anything is repeated: a wrong address or key is told at once, and not when all patience is spent."""

import uuid

import httpx

from juinie.api import PASSING, refused
from juinie.client import Client
from juinie.errors import JuinieError, NotFound


class NotReached(JuinieError):
    """Nobody answers at an address, or it is no Juinie, or it does not let us in."""


async def reach(client: Client) -> None:
    """Ask each address for a run that nobody has: api and gateway alike say `run_not_found`, and nobody else does.

    Raises:
        NotReached: one says something else, or nothing. That it is busy now is no reason.
    """
    nobodys = f"v1/runs/{uuid.uuid4()}"
    for base, path in [
        *((base, nobodys) for base in client.api.urls),
        *((base, f"{nobodys}/stream") for base in client.stream_urls),
    ]:
        try:
            answer = await client.http.get(f"{base}/{path}")
        except httpx.HTTPError as error:
            raise NotReached(f"no answer from {base}: {type(error).__name__}") from error
        if answer.is_success:
            raise NotReached(f"{base} is no Juinie, or not this part of one: it has a run that nobody has")
        refusal = refused(answer)
        if not isinstance(refusal, NotFound) and answer.status_code not in PASSING:
            raise NotReached(f"{base} answers {refusal}")
