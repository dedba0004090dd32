"""The services behind a real pgbouncer: in session mode all of it works, in transaction mode each says so and ends."""

from collections.abc import AsyncGenerator, Callable
from pathlib import Path
from uuid import uuid4

import pytest

from juinie_shared.db.pool import Pool
from juinie_testkit.client import ApiClient
from juinie_testkit.pgbouncer import PgBouncer
from juinie_testkit.plugin import SIGNING_KEYS
from juinie_testkit.seed import Seed
from juinie_testkit.stack import Stack
from juinie_testkit.waits import StillMissing, await_outbox_flush, await_stream_completion
from juinie_testkit.watcher import Watcher

pytestmark = pytest.mark.timeout(300)

CONNECTIONS = {"default_pool_size": 60, "max_client_conn": 200}
REFUSAL = "DATABASE_URL leads through a pooler that shares sessions (pgbouncer's transaction mode)"

type Behind = Callable[[str], Stack]


@pytest.fixture
def stack_behind(
    database_url: str, kafka_bootstrap_servers: str, kafka_topic: str, tmp_path: Path,
    make_pgbouncer: Callable[..., PgBouncer],
) -> Behind:  # fmt: skip
    """A stack, not started, whose every connection goes through a pgbouncer in this mode."""

    def make(pool_mode: str) -> Stack:
        url = make_pgbouncer(pool_mode, **CONNECTIONS).url_through(database_url)
        return Stack(
            url, kafka_bootstrap_servers, kafka_topic, tmp_path, environment={"JUINIE_STREAM_TOKEN_KEYS": SIGNING_KEYS}
        )  # fmt: skip

    return make


@pytest.fixture
async def stack(stack_behind: Behind) -> AsyncGenerator[Stack]:
    async with stack_behind("session") as stack:
        yield stack
        print(stack.logs())


async def test_session_mode_carries_a_run_from_its_creation_to_its_end(stack: Stack, pool: Pool):
    key = await Seed(pool).key(tenant=f"tenant-{uuid4()}")
    async with ApiClient(stack.api.url, key.text) as api:
        run_id = (await api.create())["run_id"]
        async with Watcher(stack.gateway.url, run_id, key=key.text) as watcher:
            await watcher.until_caught_up()
            for number in range(20):
                await api.append(run_id, ("token", number), idempotency_key=f"k{number}")
            assert (await api.http.get(f"/v1/runs/{run_id}/wait?timeout_seconds=0")).status_code == 202
            await api.finish(run_id)
            await await_stream_completion(watcher)
        assert [event["seq"] for event in await api.events(run_id)] == list(range(1, 24))
    await await_outbox_flush(pool, run_id)
    said = stack.publisher.log.read_text()
    assert ("outbox_listening" in said, "outbox_polling" in said) == (True, False), (
        "LISTEN, and not the poll behind it"
    )


async def test_transaction_mode_ends_every_service_with_one_clear_line(stack_behind: Behind):
    stack = stack_behind("transaction")
    for service in stack.services:
        service.launch()
    for service in stack.services:
        with pytest.raises(StillMissing, match="ended"):
            await service.until_ready()
        assert await service.stop() == 1, service.name
        lines = service.log.read_text().splitlines()
        assert lines[-1].startswith(REFUSAL), service.tail()
        assert "Traceback" not in service.log.read_text()
