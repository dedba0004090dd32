"""`juinie-api` as a process: its commands, its one-line faults, its end, and that it keeps what it is told."""

import asyncio
import json
import os
import signal
import subprocess
import sys
from datetime import timedelta
from typing import Any

import httpx
import pytest
from typer.testing import CliRunner, Result

from juinie_api.__main__ import cli
from juinie_shared.db.pool import Pool
from juinie_shared.db.tenants import Wish, set_retention
from juinie_shared.domain.errors import JuinieError, Misconfigured, SchemaBehind
from juinie_shared.runtime.keys import KeyRing
from juinie_testkit.any_service import ends_at_once
from juinie_testkit.seed import Seed
from juinie_testkit.waits import eventually

CANARY = "canary-5f2b"


def environment(**changes: str) -> dict[str, str]:
    kept = {
        name: value for name, value in os.environ.items() if not name.startswith(("JUINIE_", "DATABASE_"))
    }
    return {**kept, **changes}


async def run(*arguments: str, **env: str) -> Result:
    """A command, in this process: what it raises is what `main` tells in one line."""
    return await asyncio.to_thread(CliRunner().invoke, cli, arguments, env={"JUINIE_ENV": "test", **env})


async def test_faults_of_the_setup_are_one_line():
    wrong = environment(JUINIE_API_PORT="x", JUINIE_ENV="moon")
    code, output, errors = await ends_at_once("juinie_api", "serve", environment=wrong)
    assert (code, output, errors.count(b"\n")) == (1, b"", 1), errors
    assert all(name in errors for name in (b"DATABASE_URL", b"JUINIE_API_PORT", b"JUINIE_ENV"))


async def test_setting_how_long_a_tenant_keeps_its_runs_holds_up_none_that_is_created(api: Any):
    async with api.pool.transaction() as setting:
        await set_retention(setting, "a", runs=Wish(timedelta(days=1)))
        assert (await api.create())["status"] == "pending"


async def test_no_signing_key_outside_development_is_a_fault_of_the_setup(database_url: str):
    refused = await run("serve", DATABASE_URL=database_url)
    assert isinstance(refused.exception, Misconfigured)
    assert "JUINIE_STREAM_TOKEN_KEYS" in refused.exception.message


async def test_keys_are_made_listed_and_revoked(database_url: str, pool: Pool):
    made = await run(
        "keys", "create", "--tenant", "acme", "--scopes", "read,write", DATABASE_URL=database_url
    )
    text = made.stdout.strip()
    assert (made.exit_code, made.stdout) == (0, f"{text}\n")
    principal = await KeyRing(pool).principal(text)
    listed = await run("keys", "list", DATABASE_URL=database_url)
    assert str(principal.key_id) in listed.stdout
    assert "acme" in listed.stdout
    assert text not in listed.stdout
    assert (await run("keys", "revoke", str(principal.key_id), DATABASE_URL=database_url)).exit_code == 0
    assert "revoked" in (await run("keys", "list", DATABASE_URL=database_url)).stdout
    unknown = await run("keys", "revoke", "00000000-0000-4000-8000-000000000000", DATABASE_URL=database_url)
    assert unknown.exit_code == 1


async def test_tenants_are_listed_and_say_how_long_they_keep_runs(database_url: str, pool: Pool):
    await Seed(pool).key(tenant="acme")
    await Seed(pool).key(tenant="other")

    async def told(*arguments: str) -> str:
        ended = await run("tenants", *arguments, DATABASE_URL=database_url)
        assert ended.exit_code == 0, ended.exception
        return ended.stdout

    assert await told("set", "acme", "--events-after", "30d", "--runs-after", "2160h") == (
        "acme  events after 30d  runs after 90d\n"
    )
    assert await told("set", "acme", "--events-after", "45m") == "acme  events after 45m  runs after 90d\n"
    listed = (await told("list")).splitlines()
    assert [line.partition("  made ")[0] for line in listed] == [
        "acme  events after 45m  runs after 90d",
        "other  events for ever  runs for ever",
    ]
    assert await told("set", "acme", "--events-after", "never") == "acme  events for ever  runs after 90d\n"
    async with pool.connection() as connection:
        row = await connection.fetchrow("SELECT events_after, runs_after FROM tenant WHERE name = 'acme'")
    assert dict(row or {}) == {"events_after": None, "runs_after": timedelta(days=90)}


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("nobody", "--events-after", "30d"), "There is no tenant 'nobody'"),
        (("acme", "--events-after", "30"), "--events-after takes a number and d, h, m or s"),
        (("acme", "--events-after", "0d"), "--events-after takes"),
        (("acme", "--runs-after", "for ever"), "--runs-after takes"),
        (("acme", "--events-after", "90d", "--runs-after", "30d"), "A run cannot go after 30d while its events stay for 90d"),
        (("acme", "--events-after", "3d"), "A run cannot go after 2d while its events stay for 3d"),
        (("acme",), "Nothing to set"),
    ],
)  # fmt: skip
async def test_bad_retention_is_one_line_and_changes_nothing(
    database_url: str, pool: Pool, arguments: tuple[str, ...], says: str
):
    await Seed(pool).key(tenant="acme")
    await run(
        "tenants", "set", "acme", "--events-after", "1d", "--runs-after", "2d", DATABASE_URL=database_url
    )
    ended = await run("tenants", "set", *arguments, DATABASE_URL=database_url)
    assert isinstance(ended.exception, JuinieError)
    assert says in ended.exception.message
    assert "\n" not in ended.exception.message
    assert (
        "events after 1d  runs after 2d" in (await run("tenants", "list", DATABASE_URL=database_url)).stdout
    )


async def test_migrate_goes_up_and_down_and_makes_the_development_key_in_dev_alone(empty_database_url: str):
    env = {"DATABASE_URL": empty_database_url, "JUINIE_ENV": "dev"}
    behind = await run("keys", "list", **env)
    assert isinstance(behind.exception, SchemaBehind)
    assert (await run("migrate", **{**env, "JUINIE_ENV": "production"})).exit_code == 0
    assert (await run("keys", "list", **env)).stdout == ""
    assert (await run("migrate", **env)).exit_code == 0
    assert "dev" in (await run("keys", "list", **env)).stdout
    assert (await run("migrate", "--to", "base", **env)).exit_code == 0
    assert (await run("keys", "list", **env)).exit_code == 1


async def test_no_payload_key_or_token_is_in_logs_metrics_or_problems(
    database_url: str, signing_keys: str, pool: Pool, unused_port: int
):
    key = await Seed(pool).key()
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "juinie_api", "serve",
        env=environment(
            DATABASE_URL=database_url, JUINIE_ENV="test", JUINIE_STREAM_TOKEN_KEYS=signing_keys,
            JUINIE_API_PORT=str(unused_port), JUINIE_LOG_LEVEL="debug",
        ),
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )  # fmt: skip
    headers = {"Authorization": f"Bearer {key.text}"}
    async with httpx.AsyncClient(
        base_url=f"http://127.0.0.1:{unused_port}", headers=headers, trust_env=False
    ) as client:

        async def ready() -> bool:
            try:
                return (await client.get("/readyz")).status_code == 200
            except httpx.TransportError:
                return False

        await eventually(ready, 90, "the process to be ready")
        run = (
            await client.post("/v1/runs", json={"agent": CANARY, "input": CANARY, "thread_id": CANARY})
        ).json()
        path = f"/v1/runs/{run['run_id']}"
        append = {"events": [{"type": CANARY, "data": CANARY}]}
        await client.post(f"{path}/events", json=append, headers={"Idempotency-Key": CANARY})
        await client.get("/v1/runs", params={"agent": CANARY})
        token = (await client.post(f"{path}/stream-tokens")).json()["token"]
        refusals = [
            await client.post(
                f"{path}/events", json={"events": [{"type": f"{CANARY} x"}], f"x {CANARY}": CANARY}
            ),
            await client.post(f"{path}/finish", json={"status": CANARY, "output": CANARY}),
            await client.get("/v1/runs", params={CANARY: CANARY}),
            await client.get("/v1/runs", params={"cursor": CANARY}),
            await client.get(f"/v1/{CANARY}"),
            await client.get("/v1/runs", headers={"Authorization": f"Bearer {CANARY}"}),
        ]
        metrics = (await client.get("/metrics")).text
    process.send_signal(signal.SIGTERM)
    output, _ = await asyncio.wait_for(process.communicate(), 30)
    assert process.returncode == 0
    lines = [json.loads(line) for line in output.decode().splitlines()]
    assert sum(line["event"] == "request" for line in lines) == 10
    for refused in refusals:
        assert refused.status_code >= 400
        assert CANARY not in refused.text
    for secret in (CANARY, key.text, token):
        assert secret not in output.decode()
        assert secret not in metrics
