"""Builds the stream gateway, runs it, and takes it down: no other module opens a connection or starts a service."""

import asyncio
from collections.abc import Callable, Coroutine
from contextlib import closing

from juinie_shared.contracts.stream_tokens import StreamTokenSigner
from juinie_shared.db.pool import Pool, PoolLimits, open_pool
from juinie_shared.db.sessions import SessionCheck
from juinie_shared.db.standing import DatabaseCheck
from juinie_shared.domain.errors import Transient
from juinie_shared.runtime.cors import Cors
from juinie_shared.runtime.direct_body import chunk
from juinie_shared.runtime.gc_pauses import tame_gc
from juinie_shared.runtime.http_server import HttpLimits, HttpServer
from juinie_shared.runtime.keys import KeyRing
from juinie_shared.runtime.logs import get_logger
from juinie_shared.runtime.loop_lag import watch_loop_lag
from juinie_shared.runtime.probes import Probes
from juinie_shared.runtime.readiness import Readiness
from juinie_shared.runtime.shared_counts import SharedCounts
from juinie_shared.runtime.sibling import Sibling
from juinie_shared.runtime.tracing import configure_tracing
from juinie_shared.runtime.tries import Tries
from juinie_shared.runtime.unbroken import unbroken
from juinie_stream_gateway.core.backfill import Backfill
from juinie_stream_gateway.core.credentials import CredentialCheck
from juinie_stream_gateway.core.follow import Follower
from juinie_stream_gateway.core.hub import Hub, Room
from juinie_stream_gateway.core.places import PlaceLimits, Places
from juinie_stream_gateway.core.pulse import Pulse
from juinie_stream_gateway.core.recent import RecentFrames
from juinie_stream_gateway.core.tail import TailCheck
from juinie_stream_gateway.edges.admit import Gate
from juinie_stream_gateway.edges.http import http_app
from juinie_stream_gateway.edges.kafka import RecordReader
from juinie_stream_gateway.edges.open_stream import OpenStreams
from juinie_stream_gateway.edges.outlet import OutletLimits
from juinie_stream_gateway.edges.owner import Owner
from juinie_stream_gateway.edges.stream import StreamRoute
from juinie_stream_gateway.settings import Settings
from juinie_stream_gateway.store import FINDING_AT_ONCE, PageLimits, Store
from juinie_stream_gateway.telemetry import (
    LOG_CHECK_FAILED,
    LOG_CHECK_WORKS,
    LOG_COUNTS_BACK,
    LOG_COUNTS_LOST,
    LOG_DRAINING,
    LOG_NOT_READY,
    LOG_READY,
    SERVICE,
    Telemetry,
)

SPARE_CONNECTIONS = FINDING_AT_ONCE + 4
"""To find runs; for the tail check, the credential check, the counts and readiness. A storm of backfills never makes them wait."""

_log = get_logger("stream")


async def serve(
    settings: Settings,
    stopping: asyncio.Event,
    on_started: Callable[[int], None] = lambda _port: None,
    sibling: Sibling | None = None,
) -> None:
    """Serve until `stopping` is set; then send all watchers away and close everything. `sibling`: as one of several.

    `on_started` is called with the port once it is listened on.
    """
    provider = configure_tracing(SERVICE)
    telemetry = Telemetry(provider)
    limits = PoolLimits(size=settings.backfill_concurrency + SPARE_CONNECTIONS)
    pool = await open_pool(settings.database_url.get_secret_value(), SERVICE, limits)
    try:
        gateway = _Gateway(settings, telemetry, pool, sibling)
        with closing(gateway.server.bind()) as listener:
            on_started(gateway.server.bound_port or 0)
            async with asyncio.TaskGroup() as tasks:
                background = [tasks.create_task(unbroken(run)) for run in gateway.background]
                tasks.create_task(gateway.drain_when(stopping, background))
                answering = tasks.create_task(unbroken(gateway.probes.run))
                gateway.refill_in(tasks)
                await gateway.server.serve(
                    listener, stopping, settings.drain_seconds, settings.last_call_seconds
                )
                stopping.set()
                gateway.stop_refilling()
                answering.cancel()
            await gateway.counts.leave()
    finally:
        await asyncio.gather(pool.close(), asyncio.to_thread(provider.shutdown))


class _Gateway:
    """The parts, put together."""

    def __init__(self, settings: Settings, telemetry: Telemetry, pool: Pool, sibling: Sibling | None) -> None:
        store = Store(
            pool,
            PageLimits(settings.backfill_page_events, settings.backfill_page_bytes),
            settings.backfill_concurrency,
        )
        self.counts = SharedCounts(pool)
        self._tasks: asyncio.TaskGroup | None = None
        self._refills: set[asyncio.Task[None]] = set()
        self._backfill = Backfill(
            store.read_page, telemetry.backfill_pages.inc, telemetry.gap_refills.inc, store.read_page_soon
        )
        self._hub = hub = Hub(
            RecentFrames(settings.recent_bytes),
            self._refill,
            asyncio.get_running_loop().call_soon,
            pack=chunk,
        )
        reader = RecordReader(
            hub,
            telemetry,
            settings.kafka_bootstrap_servers,
            settings.kafka_topic,
            settings.linger_seconds,
        )
        check_sessions = SessionCheck(settings.database_url.get_secret_value(), SERVICE)
        check_database = DatabaseCheck(pool, check_sessions, dev=settings.env == "dev")

        async def look_at_kafka() -> list[str]:
            """Streams go on from Postgres without it: it only has to have been tried."""
            return [] if reader.settled.is_set() else ["Kafka has not been tried yet."]

        self._readiness = Readiness(check_database, _report_readiness, look_at_kafka)
        keys = KeyRing(pool)
        gate = Gate(
            keys,
            StreamTokenSigner(settings.signing_keys()),
            store.find_run,
            self._readiness.database_seen.is_set,
        )
        places = Places(self.counts, _place_limits(settings))
        self._streams = OpenStreams(
            Follower(hub, self._backfill, reader.listen),
            telemetry,
            OutletLimits(settings.stream_buffer_bytes),
            places,
        )

        def has_room() -> bool:
            """For a stream of a sibling's: who has not seen the database yet would refuse it."""
            return places.has_room() and self._readiness.database_seen.is_set()

        tail = TailCheck(hub, store.read_runs, settings.tail_check_seconds, settings.tail_poll_seconds)
        credentials = CredentialCheck(hub, store.valid_keys, keys.forget, settings.credential_check_seconds)
        self.background: list[Callable[[], Coroutine[None, None, None]]] = [
            reader.run,
            lambda: tail.run(_tries(telemetry, "tail")),
            lambda: credentials.run(_tries(telemetry, "credential")),
            Pulse(hub, settings.stream_heartbeat_seconds, settings.stream_cursor_seconds).run,
            self._readiness.watch,
            lambda: self.counts.run(_report_counts),
            lambda: watch_loop_lag(telemetry.loop_lag.observe),
            lambda: tame_gc(telemetry.gc_pause.observe),
        ]
        self.probes = Probes(self._readiness.missing, telemetry.registry, sibling)
        cors = Cors(settings.cors_origins, settings.env == "dev", ("GET",))
        owner = sibling and Owner(
            sibling.index,
            sibling.count,
            reader.place_of,
            hub.watchers_of,
            telemetry.handed_over.inc,
            has_room,
        )
        self.server = HttpServer(
            http_app(StreamRoute(gate, self._streams), self.probes.apps, cors, owner and owner.takes),
            settings.host,
            settings.port,
            HttpLimits(connections=settings.max_connections, unread_seconds=settings.stream_slow_seconds),
            cors,
            telemetry.connections_refused.inc,
            sibling=sibling,
            has_room=has_room,
        )

    async def drain_when(self, stopping: asyncio.Event, background: list[asyncio.Task[None]]) -> None:
        await stopping.wait()
        _log.info(LOG_DRAINING)
        self._readiness.drain()
        await self._streams.drain()
        for task in background:
            task.cancel()

    def refill_in(self, tasks: asyncio.TaskGroup) -> None:
        self._tasks = tasks

    def stop_refilling(self) -> None:
        """Nobody watches any more; a database that hangs must not hold up the stop."""
        self._tasks = None
        for refill in self._refills:
            refill.cancel()

    def _refill(self, room: Room) -> None:
        if self._tasks is not None:
            refill = self._tasks.create_task(self._backfill.refill(self._hub, room))
            self._refills.add(refill)
            refill.add_done_callback(self._refills.discard)


def _place_limits(settings: Settings) -> PlaceLimits:
    return PlaceLimits(
        settings.max_streams,
        settings.max_streams_per_tenant,
        settings.max_streams_per_key,
        settings.max_streams_per_run,
    )


def _tries(telemetry: Telemetry, check: str) -> Tries:
    def report(error: Transient | None) -> None:
        if error is None:
            _log.info(LOG_CHECK_WORKS, check=check)
        else:
            _log.warning(LOG_CHECK_FAILED, check=check, code=error.code)

    return Tries(report, telemetry.check_failures.labels(check).inc)


def _report_readiness(missing: list[str]) -> None:
    if missing:
        _log.warning(LOG_NOT_READY, waiting_for=missing)
    else:
        _log.info(LOG_READY)


def _report_counts(error: Transient | None) -> None:
    if error is None:
        _log.info(LOG_COUNTS_BACK)
    else:
        _log.warning(LOG_COUNTS_LOST, code=error.code)
