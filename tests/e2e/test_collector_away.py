"""A collector of traces that is away, or takes connections and says nothing, costs no request, no event and no stop."""

import socket
from collections.abc import Generator

import pytest

from juinie_shared.db.pool import open_pool
from juinie_testkit.client import ApiClient
from juinie_testkit.plugin import MakeStack
from juinie_testkit.seed import Seed
from juinie_testkit.waits import await_outbox_flush, await_stream_completion
from juinie_testkit.watcher import Watcher

APPENDS = 200
STOP_SECONDS = 10
"""Promised. The exporter alone would try for as long."""

pytestmark = pytest.mark.timeout(300)


@pytest.fixture(params=["hangs", "refuses"])
def collector(request: pytest.FixtureRequest) -> Generator[socket.socket]:
    """A port that takes connections and is silent, or one that is taken and refuses them."""
    with socket.socket() as port:
        port.bind(("127.0.0.1", 0))
        if request.param == "hangs":
            port.listen(100)
            port.settimeout(10)
        yield port


async def test_services_without_their_collector_do_all_that_they_do_with_it(
    make_stack: MakeStack, collector: socket.socket
):
    environment = {
        "OTEL_EXPORTER_OTLP_ENDPOINT": f"http://127.0.0.1:{collector.getsockname()[1]}",
        "OTEL_TRACES_SAMPLER": "always_on",
        "OTEL_BSP_SCHEDULE_DELAY": "100",
    }
    with make_stack(environment=environment) as stack:
        await stack.start()
        pool = await open_pool(stack.database_url, "test")
        key = await Seed(pool).key()
        async with ApiClient(stack.api.url, key.text) as api:
            run_id = (await api.create())["run_id"]
            async with Watcher(stack.gateway.url, run_id, key=key.text) as watcher:
                await watcher.until_caught_up()
                for number in range(APPENDS):
                    answer = await api.http.post(
                        f"/v1/runs/{run_id}/events", json={"events": [{"type": "a", "data": number}]}
                    )
                    assert answer.status_code == 201, answer.text
                await api.finish(run_id)
                await await_stream_completion(watcher)
        await await_outbox_flush(pool, run_id)
        await pool.close()

        assert watcher.seqs == list(range(1, APPENDS + 4))  # created, started, finished
        if collector.gettimeout():
            collector.accept()[0].close()  # somebody came, so the spans were there
        for service in stack.services:
            assert await service.stop(STOP_SECONDS) == 0, service.tail()
