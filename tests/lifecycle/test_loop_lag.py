"""Each service watches how late its event loop is, and says so."""

from juinie_testkit.any_service import AnyService
from juinie_testkit.running import running
from juinie_testkit.scrape import metric
from juinie_testkit.waits import eventually

COUNTS = {
    "api": "juinie_api_loop_lag_seconds_count",
    "publisher": "juinie_publisher_loop_lag_seconds_count",
    "stream-gateway": "juinie_stream_loop_lag_seconds_count",
}


async def test_service_looks_again_and_again_how_late_its_loop_is(
    service: AnyService, database_url: str, kafka_bootstrap_servers: str, kafka_topic: str
):
    settings = service.settings(database_url, kafka_bootstrap_servers, kafka_topic)
    async with running(service.serve, settings) as started:

        async def has_looked_often() -> bool:
            return await metric(started.url, COUNTS[service.name]) >= 3

        await eventually(has_looked_often, 30, f"three looks in {COUNTS[service.name]}")
