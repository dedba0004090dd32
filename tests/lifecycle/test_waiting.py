"""Services start in any order and wait. Liveness asks nothing of Postgres and Kafka; readiness does."""

from typing import Any, Literal

import httpx
import pytest

from juinie_shared.db.migrate import migrate
from juinie_testkit.any_service import AnyService
from juinie_testkit.backing.docker import free_port
from juinie_testkit.proxy import Proxy
from juinie_testkit.running import RunningService, running
from juinie_testkit.waits import eventually

SOON = 20


async def probe(running_service: RunningService, path: str) -> httpx.Response:
    async with httpx.AsyncClient(base_url=running_service.url, trust_env=False, timeout=5) as client:
        return await client.get(path)


async def assert_alive_and_not_ready(running_service: RunningService) -> None:
    assert (await probe(running_service, "/livez")).status_code == 200
    answer = await probe(running_service, "/readyz")
    assert (answer.status_code, answer.json()["ready"]) == (503, False)
    assert answer.json()["waiting_for"]


async def until_not_ready(running_service: RunningService) -> None:
    async def unready() -> bool:
        return (await probe(running_service, "/readyz")).status_code == 503

    await eventually(unready, SOON, "not ready")


async def go_away(proxy: Proxy, how: Literal["refuse", "hang"]) -> None:
    if how == "hang":
        proxy.hang()
        proxy.cut()
    else:
        await proxy.refuse()


@pytest.mark.parametrize("how", ["refuse", "hang"])
async def test_service_waits_for_postgres_and_comes_back_when_it_does(
    service: AnyService, how: Any, database_url: str, kafka_bootstrap_servers: str, kafka_topic: str
):
    async with Proxy.before(database_url) as proxy:
        await go_away(proxy, how)
        settings = service.settings(proxy.url_through(database_url), kafka_bootstrap_servers, kafka_topic)
        async with running(service.serve, settings, wait_ready=False) as started:
            await assert_alive_and_not_ready(started)
            await proxy.resume()
            await started.until_ready(SOON)
            await go_away(proxy, how)
            await until_not_ready(started)
            await assert_alive_and_not_ready(started)
            await proxy.resume()
            await started.until_ready(SOON)


async def test_service_waits_for_the_schema(
    service: AnyService, empty_database_url: str, kafka_bootstrap_servers: str, kafka_topic: str
):
    settings = service.settings(empty_database_url, kafka_bootstrap_servers, kafka_topic)
    async with running(service.serve, settings, wait_ready=False) as started:
        await assert_alive_and_not_ready(started)
        await migrate(empty_database_url)
        await started.until_ready(SOON)


async def test_service_is_alive_without_kafka_and_says_so_or_does_without(
    service: AnyService, database_url: str, kafka_topic: str
):
    """The gateway streams from Postgres then, and the api never needs it: decision 0011."""
    settings = service.settings(database_url, f"127.0.0.1:{free_port()}", kafka_topic)
    async with running(service.serve, settings, wait_ready=service.name != "publisher") as started:
        assert (await probe(started, "/livez")).status_code == 200
        if service.name == "publisher":

            async def says_so() -> bool:
                answer = await probe(started, "/readyz")
                return answer.status_code == 503 and "Kafka" in answer.text

            await eventually(says_so, SOON, "not ready, for want of Kafka")
