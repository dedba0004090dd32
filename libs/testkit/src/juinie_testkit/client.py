"""The API as a test uses it: over a real socket, and loud when an answer is not the one that was meant."""

from typing import Any, Self
from uuid import UUID

import httpx

from juinie_testkit.plain_http import NO_TLS


class ApiClient:
    """Calls the API with one key. `http` is there for everything that has no method here."""

    def __init__(self, base_url: str, key: str, timeout_seconds: float = 30) -> None:
        self.http = httpx.AsyncClient(
            verify=NO_TLS,
            base_url=base_url,
            headers={"Authorization": f"Bearer {key}"},
            timeout=timeout_seconds,
            trust_env=False,
        )

    async def create(self, idempotency_key: str | None = None, **body: Any) -> dict[str, Any]:
        """Create a run. Gives the Run."""
        return await self._post("/v1/runs", {"agent": "agent", **body}, idempotency_key)

    async def append(
        self, run_id: UUID | str, *events: tuple[str, Any], idempotency_key: str | None = None
    ) -> dict[str, Any]:
        """Append events. Gives `first_seq`, `last_seq`, `status`, `cancel_requested`."""
        body = {"events": [{"type": name, "data": data} for name, data in events]}
        return await self._post(f"/v1/runs/{run_id}/events", body, idempotency_key)

    async def finish(
        self, run_id: UUID | str, status: str = "success", idempotency_key: str | None = None, **body: Any
    ) -> dict[str, Any]:
        """Finish a run. Gives the Run."""
        return await self._post(f"/v1/runs/{run_id}/finish", {"status": status, **body}, idempotency_key)

    async def stream_token(self, run_id: UUID | str, ttl_seconds: int = 300) -> str:
        """A token to watch the run with."""
        answer = await self._post(f"/v1/runs/{run_id}/stream-tokens", {"ttl_seconds": ttl_seconds}, None)
        return str(answer["token"])

    async def get(self, run_id: UUID | str) -> dict[str, Any]:
        """The Run."""
        response = await self.http.get(f"/v1/runs/{run_id}")
        return _meant(response)

    async def events(self, run_id: UUID | str, after_seq: int = 0, limit: int = 1000) -> list[dict[str, Any]]:
        """One page of events."""
        response = await self.http.get(
            f"/v1/runs/{run_id}/events", params={"after_seq": after_seq, "limit": limit}
        )
        return _meant(response)["events"]

    async def _post(self, path: str, body: dict[str, Any], idempotency_key: str | None) -> dict[str, Any]:
        headers = {"Idempotency-Key": idempotency_key} if idempotency_key else {}
        return _meant(await self.http.post(path, json=body, headers=headers))

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.http.aclose()


def _meant(response: httpx.Response) -> dict[str, Any]:
    if not response.is_success:
        raise AssertionError(
            f"{response.request.method} {response.request.url} → {response.status_code} {response.text}"
        )
    return response.json()
