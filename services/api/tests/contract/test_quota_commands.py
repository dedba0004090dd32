"""`juinie-api tenants quotas`, `keys quotas`, and quotas of a key from its creation."""

import asyncio

import pytest
from typer.testing import CliRunner, Result

from juinie_api.__main__ import cli
from juinie_shared.db.keys import find_key
from juinie_shared.db.pool import Pool
from juinie_shared.runtime.keys import KeyRing
from juinie_testkit.seed import Seed


@pytest.fixture
def run(database_url: str):
    """Runs a command in this process."""

    async def invoke(*arguments: str) -> Result:
        env = {"JUINIE_ENV": "test", "DATABASE_URL": database_url}
        return await asyncio.to_thread(CliRunner().invoke, cli, arguments, env=env)

    return invoke


async def test_quotas_of_a_tenant_are_set_kept_and_taken_back(run, pool: Pool):
    key = await Seed(pool).key("acme")
    first = await run("tenants", "quotas", "acme", "--requests-per-minute", "600", "--streams", "none")
    assert (first.exit_code, first.stdout.splitlines()) == (
        0,
        [
            "requests-per-minute  600", "events-per-minute  default", "bytes-per-minute  default", "active-runs  default",
            "events-per-run  default", "waiting-requests  default", "streams  none", "streams-per-run  default",
        ],
    )  # fmt: skip
    second = await run(
        "tenants", "quotas", "acme", "--requests-per-minute", "default", "--active-runs", "5", "--events-per-run", "9"
    )  # fmt: skip
    assert second.exit_code == 0
    principal = await KeyRing(pool).principal(key.text)
    assert principal.tenant_quotas == {"streams": None, "active_runs": 5, "events_per_run": 9}
    assert principal.key_quotas == {}
    assert (await run("tenants", "quotas", "acme")).stdout == second.stdout


async def test_quotas_of_a_key_come_with_it_and_can_be_changed(run, pool: Pool):
    made = await run(
        "keys", "create", "--tenant", "acme", "--events-per-minute", "100", "--active-runs", "3", "--streams", "2"
    )  # fmt: skip
    async with pool.connection() as connection:
        principal = await find_key(connection, made.stdout.strip())
    assert principal
    assert principal.key_quotas == {"events_per_minute": 100, "active_runs": 3, "streams": 2}
    changed = await run(
        "keys", "quotas", str(principal.key_id), "--streams", "default", "--bytes-per-minute", "9", "--active-runs", "none"
    )  # fmt: skip
    assert changed.stdout.splitlines() == [
        "requests-per-minute  default", "events-per-minute  100", "bytes-per-minute  9", "active-runs  none",
        "streams  default",
    ]  # fmt: skip


@pytest.mark.parametrize("bad", ["0", "-1", "1.5", "many", "", "1000000000000001", "\u0661"])
async def test_amount_that_is_none_is_refused_in_one_line(run, bad: str):
    for command in (("tenants", "quotas", "acme"), ("keys", "create", "--tenant", "acme")):
        refused = await run(*command, f"--requests-per-minute={bad}")
        assert refused.exit_code == 2
        assert "none (no" in refused.output


async def test_unknown_tenant_and_key_are_told(run):
    unknown = await run("tenants", "quotas", "nobody", "--streams", "1")
    assert (unknown.exit_code, unknown.output.strip()) == (1, "There is no tenant of this name.")
    unknown = await run("keys", "quotas", "00000000-0000-4000-8000-000000000000")
    assert (unknown.exit_code, unknown.output.strip()) == (1, "There is no key of this id.")


async def test_bad_settings_are_one_line_that_names_them(database_url: str):
    env = {
        "JUINIE_ENV": "dev", "DATABASE_URL": database_url, "JUINIE_REQUESTS_PER_MINUTE": "0", "JUINIE_EVENTS_PER_MINUTE": "x",
        "JUINIE_BYTES_PER_MINUTE": "-1", "JUINIE_RATE_WINDOW_SECONDS": "61", "JUINIE_MAX_ACTIVE_RUNS": "0",
        "JUINIE_MAX_ACTIVE_RUNS_PER_KEY": "0", "JUINIE_MAX_EVENTS_PER_RUN": "0", "JUINIE_MAX_WAITING_REQUESTS": "",
    }  # fmt: skip
    refused = await asyncio.to_thread(CliRunner().invoke, cli, ["serve"], env=env)
    message = str(refused.exception)
    assert message.count("\n") == 0
    assert all(name in message for name in env if name not in {"JUINIE_ENV", "DATABASE_URL"})
