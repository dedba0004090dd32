"""An api over a real socket, on a database of the test's own, with a client of one tenant."""

from collections.abc import AsyncGenerator
from dataclasses import dataclass
from typing import Any
from uuid import UUID

import httpx
import pytest

from juinie_api.app import serve
from juinie_api.settings import Settings
from juinie_shared.db.pool import Pool
from juinie_testkit.backing.docker import free_port
from juinie_testkit.plain_http import NO_TLS
from juinie_testkit.running import RunningService, running
from juinie_testkit.seed import Seed, SeededKey
from juinie_testkit.waits import eventually

type Json = dict[str, Any]


@dataclass
class Api:
    """A running api, and a client that shows the key of tenant `a`."""

    service: RunningService
    client: httpx.AsyncClient
    key: SeededKey
    pool: Pool
    seed: Seed

    def client_of(self, key: SeededKey) -> httpx.AsyncClient:
        return client_of(self.service, key)

    def client_of_service(self, service: RunningService, key: SeededKey | None = None) -> httpx.AsyncClient:
        """A client of another api, with the same key unless another is given."""
        return client_of(service, key or self.key)

    async def create(self, **body: Any) -> Json:
        response = await self.client.post("/v1/runs", json={"agent": "agent", **body})
        assert response.status_code in {200, 201}, response.text
        return response.json()

    async def append(self, run_id: str, *types: str, headers: dict[str, str] | None = None) -> httpx.Response:
        body = {"events": [{"type": name, "data": {"n": n}} for n, name in enumerate(types or ("x",))]}
        return await self.client.post(f"/v1/runs/{run_id}/events", json=body, headers=headers)

    async def finish(
        self, run_id: str, status: str = "success", headers: dict[str, str] | None = None, **body: Any
    ) -> httpx.Response:
        return await self.client.post(
            f"/v1/runs/{run_id}/finish", json={"status": status, **body}, headers=headers
        )

    async def claim(self, *agents: str, worker_id: str = "w", **body: Any) -> httpx.Response:
        return await self.client.post("/v1/claims", json={"agents": agents, "worker_id": worker_id, **body})

    async def claim_new(self, **body: Any) -> httpx.Response:
        """A new run, claimed by a worker."""
        await self.create()
        return await self.claim("agent", **body)

    async def lose_lease(self, run_id: str) -> None:
        """Put a run back, as the sweeper does with one whose lease has run out."""
        await self.rows(
            """WITH back AS (
                   UPDATE run SET status = 'pending', lease_token = NULL, lease_expires_at = NULL, last_seq = last_seq + 1
                   WHERE run_id = $1 RETURNING run_id, last_seq, attempt
               )
               INSERT INTO run_event (run_id, seq, type, data)
               SELECT run_id, last_seq, 'run.lease_expired', '{"attempt":' || attempt || '}' FROM back""",
            UUID(run_id),
        )

    async def until_waiting(self, workers: int) -> None:
        """Wait until so many workers wait at this api for a run."""

        async with httpx.AsyncClient(
            verify=NO_TLS, base_url=self.service.url, trust_env=False, timeout=30
        ) as probe:

            async def wait() -> bool:
                return f"juinie_api_claims_waiting {workers}.0" in (await probe.get("/metrics")).text

            await eventually(wait, 20, f"{workers} workers that wait")

    async def events(self, run_id: str, **query: Any) -> list[Json]:
        response = await self.client.get(f"/v1/runs/{run_id}/events", params=query)
        assert response.status_code == 200, response.text
        return response.json()["events"]

    async def rows(self, sql: str, *values: object) -> list[Any]:
        async with self.pool.connection() as connection:
            return await connection.fetch(sql, *values)


def client_of(service: RunningService, key: SeededKey) -> httpx.AsyncClient:
    headers = {"Authorization": f"Bearer {key.text}"}
    limits = httpx.Limits(max_connections=200)
    return httpx.AsyncClient(
        verify=NO_TLS, base_url=service.url, headers=headers, trust_env=False, timeout=60, limits=limits
    )


@pytest.fixture
def settings(database_url: str, signing_keys: str) -> Settings:
    return Settings.model_validate(
        {
            "database_url": database_url,
            "env": "test",
            "port": 0,
            "stream_token_keys": signing_keys,
            "last_call_seconds": 0,
        }
    )


@pytest.fixture
async def api(settings: Settings, pool: Pool) -> AsyncGenerator[Api]:
    seed = Seed(pool)
    key = await seed.key()
    async with running(serve, settings) as service, client_of(service, key) as client:
        yield Api(service, client, key, pool, seed)


@pytest.fixture
def unused_port() -> int:
    """A port that was free a moment ago."""
    return free_port()
