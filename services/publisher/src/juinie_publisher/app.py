"""Builds the publisher, runs it until it is told to stop, and closes all it opened. No other module starts a task."""

import asyncio
import os
import socket
from collections.abc import Awaitable, Callable, Coroutine
from contextlib import closing, suppress
from dataclasses import dataclass, replace
from datetime import timedelta
from functools import partial

from faststream.asgi import AsgiFastStream
from opentelemetry.trace import Tracer
from prometheus_client import CollectorRegistry

from juinie_publisher.core.backlog import watch_backlog
from juinie_publisher.core.doorbell import Doorbell
from juinie_publisher.core.duties import RETENTION, SWEEP, Duties
from juinie_publisher.core.judge import Rules
from juinie_publisher.core.purge import purge
from juinie_publisher.core.record_dead import Recorder
from juinie_publisher.core.relay import Relay
from juinie_publisher.core.retention import Retention
from juinie_publisher.core.sweep import Sweeper, watch_overdue
from juinie_publisher.edges.application import make_application
from juinie_publisher.edges.kafka import KafkaTopic
from juinie_publisher.edges.listen import listen
from juinie_publisher.edges.topic_admin import TopicPlan
from juinie_publisher.settings import Settings
from juinie_publisher.store.dead_letters import DeadLetterStore
from juinie_publisher.store.deleted_runs import DeletedRunStore
from juinie_publisher.store.due_runs import DueRunStore
from juinie_publisher.store.duties import DutyStore
from juinie_publisher.store.kept_runs import KeptRunStore
from juinie_publisher.store.outbox import BY_INDEX, PLANNING, OutboxStore
from juinie_publisher.telemetry import Telemetry
from juinie_shared.contracts.names import DUTIES_CHANNEL, OUTBOX_CHANNEL
from juinie_shared.db.plans import ONE_PLAN
from juinie_shared.db.pool import Pool, PoolLimits, open_pool
from juinie_shared.db.sessions import SessionCheck
from juinie_shared.db.standing import DatabaseCheck
from juinie_shared.domain.ids import new_uuid7
from juinie_shared.runtime.gc_pauses import tame_gc
from juinie_shared.runtime.http_server import HttpServer
from juinie_shared.runtime.loop_lag import watch_loop_lag
from juinie_shared.runtime.probes import Probes
from juinie_shared.runtime.readiness import Readiness
from juinie_shared.runtime.sibling import Sibling
from juinie_shared.runtime.tracing import configure_tracing
from juinie_shared.runtime.unbroken import unbroken
from juinie_shared.runtime.unrecorded import QuickTracer

POOL_SIZE = 8
"""Dead letters, duties, purge, sweeper, retention, two gauges, readiness: one at a time each. Partitions whose record
is parked want one besides, each, and wait for what is free."""
RELAY_POOL_SIZE = 2
"""The relay's fetches, and its other statements: one at a time each, and one that may be on its way out after a statement that
was given up."""
HANDOVER_SECONDS = 0.5
"""How long the round in flight may hold up the giving back of duties, when the process is asked to stop."""
PROBE_DRAIN_SECONDS = 1.0
KAFKA_SECONDS = 2.0
"""How long Kafka may take to answer before the publisher is not ready."""


@dataclass(frozen=True, slots=True)
class Parts:
    """The publisher, built and not yet running."""

    topic: KafkaTopic
    dead_topic: KafkaTopic
    pool: Pool
    outbox: OutboxStore
    dead_letters: DeadLetterStore
    doorbell: Doorbell
    duty_bell: Doorbell
    duties: Duties
    telemetry: Telemetry
    readiness: Readiness
    probes: Probes
    application: AsgiFastStream


async def serve(
    settings: Settings,
    stopping: asyncio.Event,
    on_started: Callable[[int], None] = lambda _port: None,
    sibling: Sibling | None = None,
) -> None:
    """Relay until `stopping` is set, then finish the batch in flight and close, within `drain_seconds`.

    `sibling`: as one of several.

    `on_started` is called with the port once it is listened on; Postgres and Kafka may come later.

    Raises:
        Misconfigured: the port is taken, the development key is in a database that is not for development, or a pooler
            stands before the database in a mode that we cannot work with.
    """
    provider = configure_tracing("juinie-publisher")
    database_url = settings.database_url.get_secret_value()
    pool = await open_pool(database_url, "juinie-publisher", PoolLimits(size=POOL_SIZE), **PLANNING)
    relay_pool, fetch_pool = [
        await open_pool(database_url, "juinie-publisher", PoolLimits(size=RELAY_POOL_SIZE), **each)
        for each in (BY_INDEX, ONE_PLAN)
    ]
    outbox = OutboxStore(relay_pool, fetch_pool)
    parts = _build(settings, pool, outbox, QuickTracer(provider, "juinie_publisher"), sibling)
    http = HttpServer(parts.application, settings.host, settings.port, sibling=sibling)
    try:
        # It listens from here on: a probe waits for its answer instead of being refused.
        with closing(http.bind()) as listener:
            async with parts.application:
                port: int = listener.getsockname()[1]
                on_started(port)
                parts.telemetry.started(port)
                probes = partial(http.serve, listener, stopping, PROBE_DRAIN_SECONDS)
                running = _run(parts, settings, probes, stopping)
                await _within_drain(running, stopping, settings.drain_seconds)
    finally:
        last_spans = asyncio.to_thread(provider.shutdown)
        await asyncio.gather(
            parts.topic.close(), parts.dead_topic.close(),
            pool.close(), relay_pool.close(), fetch_pool.close(), last_spans,
        )  # fmt: skip
        parts.telemetry.stopped()


def _build(
    settings: Settings, pool: Pool, outbox: OutboxStore, tracer: Tracer, sibling: Sibling | None
) -> Parts:
    """Everything, handed to where it is used. Nothing connects or starts here."""
    registry = CollectorRegistry()
    telemetry = Telemetry(tracer, registry)
    plan = TopicPlan(settings.kafka_topic, settings.kafka_partitions, settings.kafka_replication_factor)
    servers = settings.kafka_bootstrap_servers
    dead_plan = replace(plan, name=settings.kafka_dead_letter_topic)
    topic, dead_topic = (
        KafkaTopic(servers, each, partial(telemetry.topic_created, each.name, each.partitions))
        for each in (plan, dead_plan)
    )
    check_sessions = SessionCheck(settings.database_url.get_secret_value(), "juinie-publisher")

    async def look_at_kafka() -> list[str]:
        return [] if await topic.is_reachable(KAFKA_SECONDS) else ["Kafka does not answer."]

    check_database = DatabaseCheck(pool, check_sessions, dev=settings.env == "dev")
    readiness = Readiness(check_database, telemetry.waiting_for, look_at_kafka)
    probes = Probes(readiness.missing, registry, sibling)
    application = make_application(plan.name, dead_plan.name, servers, probes.apps)
    doorbell, duty_bell = Doorbell(), Doorbell()
    duties = Duties(DutyStore(pool, new_uuid7(), _own_name()), duty_bell, doorbell.ring, telemetry)
    return Parts(
        topic, dead_topic, pool, outbox, DeadLetterStore(pool), doorbell, duty_bell, duties, telemetry,
        readiness, probes, application,
    )  # fmt: skip


def _own_name() -> str:
    """What an operator knows this process by."""
    return f"{socket.gethostname()}:{os.getpid()}"


async def _run(
    parts: Parts, settings: Settings, probes: Callable[[], Awaitable[None]], stopping: asyncio.Event
) -> None:
    """Answer probes from the start, work as soon as there are tables to work on, and end with the work."""
    database_url = settings.database_url.get_secret_value()
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(unbroken(probes))
        looking = tasks.create_task(unbroken(parts.readiness.watch))
        bells = {OUTBOX_CHANNEL: parts.doorbell, DUTIES_CHANNEL: parts.duty_bell}
        listening = tasks.create_task(unbroken(listen, database_url, bells, parts.telemetry))
        watching = [
            tasks.create_task(unbroken(watch_loop_lag, parts.telemetry.loop_was_late)),
            tasks.create_task(unbroken(tame_gc, parts.telemetry.gc_paused)),
            tasks.create_task(unbroken(parts.probes.run)),
        ]
        working = tasks.create_task(unbroken(_work, parts, settings, stopping))
        await stopping.wait()
        parts.readiness.drain()
        looking.cancel()
        for bell in bells.values():
            bell.ring()
        await asyncio.wait({working})
        listening.cancel()
        for watch in watching:
            watch.cancel()


async def _work(parts: Parts, settings: Settings, stopping: asyncio.Event) -> None:
    await _first_of(parts.readiness.database_seen, stopping)

    def shards() -> frozenset[int]:
        return parts.duties.shards

    relay = Relay(
        parts.outbox, parts.dead_letters, parts.topic, parts.doorbell, parts.telemetry, shards=shards
    )
    async with asyncio.TaskGroup() as tasks:
        relaying = tasks.create_task(unbroken(relay.run, stopping))
        tasks.create_task(unbroken(_share_duties, parts.duties, relaying, stopping))
        recorder = Recorder(parts.dead_letters, parts.dead_topic, parts.telemetry, shards)
        tasks.create_task(unbroken(recorder.run, stopping))
        cleans = partial(parts.duties.holds, RETENTION)
        tasks.create_task(unbroken(purge, DeletedRunStore(parts.pool), cleans, parts.telemetry, stopping))
        tasks.create_task(unbroken(watch_backlog, OutboxStore(parts.pool), parts.telemetry, stopping))
        tasks.create_task(unbroken(_sweeper(parts, settings).run, stopping))
        retention = Retention(KeptRunStore(parts.pool), cleans, parts.telemetry)
        tasks.create_task(unbroken(retention.run, stopping))
        overdue = DueRunStore(parts.pool)
        tasks.create_task(unbroken(watch_overdue, overdue, parts.telemetry, stopping, settings.sweep_seconds))


def _sweeper(parts: Parts, settings: Settings) -> Sweeper:
    rules = Rules(settings.max_attempts, timedelta(seconds=settings.cancel_grace_seconds))
    sweeps = partial(parts.duties.holds, SWEEP)
    runs = DueRunStore(parts.pool, partial(parts.telemetry.failed, "notify"))
    return Sweeper(runs, rules, sweeps, parts.telemetry, settings.sweep_seconds)


async def _share_duties(duties: Duties, relaying: asyncio.Task[None], stopping: asyncio.Event) -> None:
    """Hold duties until the process is asked to stop, and hand them over: after the round in flight, or without it."""
    await duties.run(stopping)
    await asyncio.wait({relaying}, timeout=HANDOVER_SECONDS)
    await duties.leave()


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
