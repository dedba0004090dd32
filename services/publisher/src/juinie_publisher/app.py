"""Builds the publisher, runs it until it is told to stop, and closes all it opened. No other module starts a task."""

import asyncio
from collections.abc import Callable, Coroutine
from contextlib import suppress

from prometheus_client import CollectorRegistry

from juinie_publisher.core.backlog import watch_backlog
from juinie_publisher.core.doorbell import Doorbell
from juinie_publisher.core.purge import purge
from juinie_publisher.core.relay import Relay
from juinie_publisher.edges.application import make_application
from juinie_publisher.edges.health import Health
from juinie_publisher.edges.kafka import RunEventTopic
from juinie_publisher.edges.listen import listen
from juinie_publisher.edges.topic_admin import TopicPlan
from juinie_publisher.settings import Settings
from juinie_publisher.store import Store
from juinie_publisher.telemetry import Telemetry
from juinie_shared.db.pool import PoolLimits, open_pool
from juinie_shared.runtime.http_server import HttpServer
from juinie_shared.runtime.probes import probe_apps
from juinie_shared.runtime.tracing import configure_tracing

POOL_SIZE = 4
"""Relay, purge, gauges, readiness: one each."""
PROBE_DRAIN_SECONDS = 1.0


async def serve(
    settings: Settings, stopping: asyncio.Event, on_started: Callable[[int], None] = lambda _port: None
) -> None:
    """Relay until `stopping` is set, then finish the batch in flight and close, within `drain_seconds`.

    `on_started` is called with the port once the health checks answer; Postgres and Kafka may come later.

    Raises:
        Misconfigured: the port is taken, or the development key is in a database that is not for development.
    """
    database_url = settings.database_url.get_secret_value()
    provider = configure_tracing("juinie-publisher")
    registry = CollectorRegistry()
    telemetry = Telemetry(provider.get_tracer("juinie_publisher"), registry)
    plan = TopicPlan(settings.kafka_topic, settings.kafka_partitions, settings.kafka_replication_factor)
    topic = RunEventTopic(
        settings.kafka_bootstrap_servers, plan, lambda: telemetry.topic_created(plan.name, plan.partitions)
    )
    pool = await open_pool(database_url, "juinie-publisher", PoolLimits(size=POOL_SIZE))
    store, doorbell = Store(pool), Doorbell()
    health = Health(lambda: store.check(dev=settings.env == "dev"), topic.is_reachable, telemetry)
    application = make_application(
        plan.name, settings.kafka_bootstrap_servers, probe_apps(health.readiness, registry)
    )
    relay = Relay(store, topic, doorbell, telemetry)
    http = HttpServer(application, settings.host, settings.port)
    listener = http.bind()
    listener.listen()  # from here on a probe waits for its answer instead of being refused

    async def work() -> None:
        await _first_of(health.database_seen, stopping)  # without its tables there is nothing to do
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(relay.run(stopping))
            tasks.create_task(purge(store, telemetry, stopping))
            tasks.create_task(watch_backlog(store, telemetry, stopping))

    async def serve_until_stopped() -> None:
        async with asyncio.TaskGroup() as tasks:
            listening = tasks.create_task(listen(database_url, doorbell, telemetry))
            tasks.create_task(health.watch(stopping))
            tasks.create_task(http.serve(listener, stopping, PROBE_DRAIN_SECONDS))
            working = tasks.create_task(work())
            await stopping.wait()
            doorbell.ring()
            await asyncio.wait({working})
            listening.cancel()

    try:
        async with application:
            on_started(http.bound_port or 0)
            telemetry.started(http.bound_port or 0)
            await _within_drain(serve_until_stopped(), stopping, settings.drain_seconds)
    finally:
        listener.close()
        await topic.close()
        await pool.close()
        await asyncio.to_thread(provider.shutdown)
        telemetry.stopped()


async def _within_drain(
    work: Coroutine[None, None, None], stopping: asyncio.Event, drain_seconds: float
) -> None:
    """Run `work` to its end, and cut it when `drain_seconds` have passed since `stopping` was set."""

    async def drained() -> None:
        await stopping.wait()
        await asyncio.sleep(drain_seconds)

    working, draining = asyncio.create_task(work), asyncio.create_task(drained())
    try:
        await asyncio.wait({working, draining}, return_when=asyncio.FIRST_COMPLETED)
    finally:
        draining.cancel()
        working.cancel()
        with suppress(asyncio.CancelledError):
            await working


async def _first_of(*events: asyncio.Event) -> None:
    waits = {asyncio.create_task(event.wait()) for event in events}
    try:
        await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for wait in waits:
            wait.cancel()
