"""Juinie from Python: create, append, finish, stream, claim.

    async with Client() as juinie:                      # addresses and key from JUINIE_API_URL, …_STREAM_URL, …_API_KEY
        run = await juinie.create_run("researcher", input={"question": "Why?"})
        await juinie.append(run["run_id"], ("token", {"text": "Because"}))
        await juinie.finish(run["run_id"], "success")
        async for event in juinie.stream(run["run_id"]):
            print(event.seq, event.type, event.data)

Every write is repeated under one Idempotency-Key until it is answered; a stream comes back until the run has ended.
"""

import os
import uuid
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from typing import Any, Self

import httpx

from juinie.answers import APPENDED, CLAIMED, LEASE, PAGE, RUN, TOKEN, checked, read_object
from juinie.api import Api
from juinie.claims import Claim
from juinie.connection import NO_CONTENT
from juinie.errors import unreadable
from juinie.events import RunEvent, events_of_page
from juinie.run_stream import RunStream

type Run = dict[str, Any]


class Client:
    """A deployment of Juinie. Use as `async with`.

    Args:
        api_url, stream_url: one address or several of the same deployment; from the environment when absent.
        retry_seconds: how long a request is repeated before `NoAnswer`.
        transport: in place of httpx's own.
    """

    def __init__(
        self,
        api_url: str | Sequence[str] | None = None,
        stream_url: str | Sequence[str] | None = None,
        api_key: str | None = None,
        *,
        retry_seconds: float = 60.0,
        transport: httpx.AsyncBaseTransport | None = None,
    ) -> None:
        key = api_key or os.environ["JUINIE_API_KEY"]
        self.http = httpx.AsyncClient(
            headers={"Authorization": f"Bearer {key}"},
            timeout=httpx.Timeout(10.0),
            limits=httpx.Limits(max_connections=None, max_keepalive_connections=100),
            trust_env=False,
            transport=transport,
        )
        self.api = Api(self.http, _addresses(api_url, "JUINIE_API_URL"), retry_seconds)
        self.stream_urls = _addresses(stream_url, "JUINIE_STREAM_URL")

    async def create_run(self, agent: str, *, idempotency_key: str | None = None, **fields: Any) -> Run:
        """Create a run; `fields` are those of the protocol (3.1), such as `input` and `run_id`."""
        answer = await self._post("/v1/runs", {"agent": agent, **fields}, idempotency_key or new_key())
        return read_object(answer, RUN)

    async def get_run(self, run_id: str) -> Run:
        """The Run as it is now."""
        return read_object(await self.api.send("GET", f"/v1/runs/{run_id}"), RUN)

    async def append(
        self,
        run_id: str,
        *events: tuple[str, Any],
        idempotency_key: str | None = None,
        lease: str | None = None,
    ) -> dict[str, Any]:
        """Append events, each a type and its data: all of them or none.

        Gives `first_seq`, `last_seq`, `status` and `cancel_requested`.

        Raises:
            RunFinished, RunFull, LeaseLost: nothing was appended, and nothing will be.
            NoAnswer: repeat it with the same `idempotency_key`.
        """
        body = {"events": [{"type": name, "data": data} for name, data in events]}
        key = idempotency_key or new_key()
        return read_object(await self._post(f"/v1/runs/{run_id}/events", body, key, lease), APPENDED)

    async def finish(
        self,
        run_id: str,
        status: str = "success",
        *,
        output: Any = None,
        error: Any = None,
        idempotency_key: str | None = None,
        lease: str | None = None,
    ) -> Run:
        """Finish a run. Gives the Run."""
        body = {"status": status, "output": output, "error": error}
        key = idempotency_key or new_key()
        return read_object(await self._post(f"/v1/runs/{run_id}/finish", body, key, lease), RUN)

    async def cancel(self, run_id: str, reason: str | None = None) -> Run:
        """Ask a run to stop."""
        body = {"reason": reason} if reason else {}
        return read_object(await self.api.send("POST", f"/v1/runs/{run_id}/cancel", json=body), RUN)

    async def claim(
        self, agents: Sequence[str], worker_id: str, *, lease_seconds: int = 30, wait_seconds: int = 20
    ) -> Claim | None:
        """Wait for a run of these agents and take it; None when there was nothing to do."""
        body = {
            "agents": list(agents), "worker_id": worker_id, "lease_seconds": lease_seconds, "wait_seconds": wait_seconds,
        }  # fmt: skip
        answer = await self.api.send("POST", "/v1/claims", json=body, timeout_seconds=wait_seconds + 10)
        if answer.status_code == NO_CONTENT:
            return None
        given = read_object(answer, CLAIMED)
        run, lease = checked(answer, given["run"], RUN), checked(answer, given["lease"], LEASE)
        return Claim(self, run, lease["token"], lease["attempt"])

    async def heartbeat(self, run_id: str, lease: str) -> dict[str, Any]:
        """Renew a lease. Gives `expires_at` and `cancel_requested`."""
        headers = {"Juinie-Lease": lease}
        answer = await self.api.send("POST", f"/v1/runs/{run_id}/heartbeat", json={}, headers=headers)
        return read_object(answer, {})

    async def stream_token(self, run_id: str, ttl_seconds: int = 600) -> str:
        """A token that may read this one run's stream, for a browser."""
        path, body = f"/v1/runs/{run_id}/stream-tokens", {"ttl_seconds": ttl_seconds}
        return read_object(await self.api.send("POST", path, json=body), TOKEN)["token"]

    async def pages(self, run_id: str, after_seq: int = 0) -> AsyncGenerator[list[RunEvent]]:
        """The events that are stored now, page by page."""
        up_to_date = False
        while not up_to_date:
            params = {"after_seq": after_seq, "limit": 1000}
            answer = await self.api.send("GET", f"/v1/runs/{run_id}/events", params=params)
            page = read_object(answer, PAGE)
            after_seq, up_to_date = page["next_after_seq"], page["up_to_date"]
            try:
                yield list(events_of_page(answer.content))
            except ValueError as error:
                raise unreadable(answer.status_code, "a page without run events") from error

    async def stream(
        self, run_id: str, after_seq: int = 0, types: Sequence[str] = ()
    ) -> AsyncGenerator[RunEvent]:
        """Every event after `after_seq`, once and in order, to the end of the run.

        Comes back by itself after a drop. A run that is set back (a restored database) begins again from 1.

        Raises:
            Refused: the stream is no longer for us: the run was deleted, the key revoked.
        """
        urls = [f"{url}/v1/runs/{run_id}/stream" for url in self.stream_urls]
        watched = RunStream(self.http, urls, after_seq, ",".join(types) or None)
        async with aclosing(watched.events()) as events:
            async for event in events:
                yield event

    async def _post(
        self, path: str, body: dict[str, Any], key: str, lease: str | None = None
    ) -> httpx.Response:
        headers = {"Idempotency-Key": key, **({"Juinie-Lease": lease} if lease else {})}
        return await self.api.send("POST", path, json=body, headers=headers)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.http.aclose()


def new_key() -> str:
    """An Idempotency-Key that nobody else has."""
    return str(uuid.uuid4())


def _addresses(given: str | Sequence[str] | None, variable: str) -> list[str]:
    urls = [given] if isinstance(given, str) else list(given or [os.environ[variable]])
    return [url.rstrip("/") for url in urls]
