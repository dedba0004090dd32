"""Builds the api, serves it, and takes it down again. Nothing else opens a connection or starts a task."""

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from contextlib import closing
from dataclasses import dataclass, replace
from typing import Any

from opentelemetry.sdk.trace import TracerProvider

from juinie_api import telemetry
from juinie_api.core.append import OneByOne
from juinie_api.core.claim import claim_run, find_pending, give_back
from juinie_api.core.desk import CLERKS, ClaimDesk
from juinie_api.core.group import FLIGHTS, Grouped
from juinie_api.core.lanes import RunLanes
from juinie_api.core.listener import Listener
from juinie_api.core.notifier import Notifier
from juinie_api.core.patience import (
    LOCK_SECONDS,
    MOST_ACQUIRE_SECONDS,
    RELEASE_SECONDS,
    STATEMENT_SECONDS,
    TURN_SECONDS,
    seconds_for_a_connection,
)
from juinie_api.core.places import WaitingPlaces
from juinie_api.core.tenant_pools import TenantPools
from juinie_api.core.waker import Waker
from juinie_api.core.windows import Windows
from juinie_api.edges.admission import Admission
from juinie_api.edges.call import Services
from juinie_api.edges.http import METHODS, build_api
from juinie_api.edges.limits import Limits
from juinie_api.edges.over_limit import OverLimit
from juinie_api.edges.unanswered import Unanswered
from juinie_api.settings import Settings
from juinie_shared.contracts.names import OUTBOX_CHANNEL, PENDING_CHANNEL
from juinie_shared.contracts.stream_tokens import StreamTokenSigner
from juinie_shared.db.plans import ALONG_INDEXES, IN_ORDER, ONE_PLAN
from juinie_shared.db.pool import Connection, Pool, PoolLimits, connect, open_pool
from juinie_shared.db.sessions import SessionCheck
from juinie_shared.db.standing import DatabaseCheck
from juinie_shared.domain.errors import Transient
from juinie_shared.domain.quotas import Quota
from juinie_shared.runtime.cors import Cors
from juinie_shared.runtime.gc_pauses import tame_gc
from juinie_shared.runtime.http_server import HttpLimits, HttpServer
from juinie_shared.runtime.keys import KeyRing
from juinie_shared.runtime.logs import get_logger
from juinie_shared.runtime.loop_lag import watch_loop_lag
from juinie_shared.runtime.probes import AsgiApp, Probes
from juinie_shared.runtime.readiness import Readiness
from juinie_shared.runtime.shared_counts import SharedCounts
from juinie_shared.runtime.sibling import Sibling
from juinie_shared.runtime.tracing import configure_tracing
from juinie_shared.runtime.unbroken import unbroken

_log = get_logger("api")

FIRST_CONNECTIONS = 4
"""For requests that cannot share one, in a server that has just started."""


async def serve(
    settings: Settings,
    stopping: asyncio.Event,
    on_started: Callable[[int], None] = lambda _port: None,
    sibling: Sibling | None = None,
) -> None:
    """Serve until `stopping` is set; then drain, and close everything. `sibling`: as one of several.

    `on_started` gets the port once it is listened on. Postgres may be away: the api is not ready then, and waits.

    Raises:
        Misconfigured: the setup is wrong: a taken port, a missing signing key, the development key outside dev.
    """
    provider = configure_tracing(telemetry.SERVICE)
    limits = PoolLimits(
        size=settings.database_connections,
        acquire_seconds=MOST_ACQUIRE_SECONDS,
        connect_seconds=MOST_ACQUIRE_SECONDS,
        statement_seconds=STATEMENT_SECONDS,
        lock_seconds=LOCK_SECONDS,
        release_seconds=RELEASE_SECONDS,
    )
    pools = await _open_pools(settings, limits)
    try:
        api = _Api(settings, provider, pools, limits, stopping, sibling)
        with closing(api.server.bind()) as listener:
            async with asyncio.TaskGroup() as tasks:
                background = [tasks.create_task(unbroken(run)) for run in api.background]
                tasks.create_task(api.drain_when(stopping))
                on_started(api.server.bound_port or 0)
                _log.info(telemetry.STARTED, port=api.server.bound_port)
                await api.server.serve(listener, stopping, settings.drain_seconds, settings.last_call_seconds)
                for task in background:
                    task.cancel()
            await api.counts.leave()
            _log.info(telemetry.STOPPED)
    finally:
        await asyncio.gather(pools.close(), asyncio.to_thread(provider.shutdown))


@dataclass(frozen=True, slots=True)
class Pools:
    """Connections for requests, for what is committed together, for the desk, and for readiness."""

    requests: Pool
    flights: Pool
    desk: Pool
    health: Pool

    async def close(self) -> None:
        """All at once: each waits for a server that is silent."""
        await asyncio.gather(
            self.requests.close(), self.flights.close(), self.desk.close(), self.health.close()
        )


async def _open_pools(settings: Settings, limits: PoolLimits) -> Pools:
    url = settings.database_url.get_secret_value()
    patient = replace(limits, acquire_within=seconds_for_a_connection)
    return Pools(
        requests=await open_pool(url, telemetry.SERVICE, patient, **ALONG_INDEXES),
        flights=await open_pool(url, telemetry.SERVICE, replace(limits, size=_flights(settings)), **ONE_PLAN),
        desk=await open_pool(url, telemetry.SERVICE, replace(limits, size=_clerks(settings) + 1), **IN_ORDER),
        health=await open_pool(url, telemetry.SERVICE, replace(limits, size=1)),
    )


class _Api:
    """The parts, put together."""

    def __init__(
        self,
        settings: Settings,
        provider: TracerProvider,
        pools: Pools,
        limits: PoolLimits,
        stopping: asyncio.Event,
        sibling: Sibling | None,
    ) -> None:
        url, dev = settings.database_url.get_secret_value(), settings.env == "dev"
        pool = pools.requests

        async def connect_apart() -> Connection:
            return await connect(url, telemetry.SERVICE, limits)

        self._metrics = metrics = telemetry.build_metrics()
        self.counts = SharedCounts(pool)
        self._notifier = Notifier(connect_apart, metrics.notify_failures.inc, _log.warning)
        self._waker = waker = Waker(pool, _log.warning)
        self._desk = desk = _desk(pools.desk, _clerks(settings))
        self._unanswered = Unanswered(settings.max_unanswered_bytes, metrics.bodies_refused.inc)
        self._windows = Windows(self.counts, _rates(settings), settings.rate_window_seconds)
        metrics.long_polls.set_function(lambda: waker.waiting)
        metrics.waiting_claims.set_function(lambda: desk.waiting)
        heard = {OUTBOX_CHANNEL: waker.committed, PENDING_CHANNEL: desk.look_soon}
        check_sessions = SessionCheck(url, telemetry.SERVICE, limits)
        check_database = DatabaseCheck(pools.health, check_sessions, dev=dev)
        self._readiness = Readiness(_once_warm(check_database, settings, pools), _report_readiness)
        over_limit = OverLimit(metrics)
        probes = Probes(self._readiness.missing, metrics.registry, sibling)
        self.background: list[Callable[[], Coroutine[None, None, None]]] = [
            self._notifier.run,
            Listener(connect_apart, heard, _log.warning).run,
            waker.run,
            desk.run,
            self._readiness.watch,
            lambda: self.counts.run(_report_counts),
            over_limit.run,
            lambda: watch_loop_lag(metrics.loop_lag.observe),
            lambda: tame_gc(metrics.gc_pause.observe),
            probes.run,
        ]
        api = build_api(self._services(settings, pools, stopping), metrics, provider)
        admission = Admission(api, KeyRing(pool), self._windows, self._unanswered, over_limit.refused)
        cors = Cors(settings.cors_origins, dev, METHODS)
        self.server = HttpServer(
            cors.around(_with_probes(admission, probes.apps)),
            settings.host,
            settings.port,
            HttpLimits(
                connections=settings.max_connections,
                unread_seconds=settings.unread_seconds,
                unread_bytes=settings.max_unread_bytes,
            ),
            cors,
            metrics.connections_refused.inc,
            metrics.unread_answers.inc,
            sibling,
        )
        metrics.unread_bytes.set_function(lambda: self.server.unread_bytes)
        metrics.unanswered_bytes.set_function(lambda: self._unanswered.held_bytes)

    async def drain_when(self, stopping: asyncio.Event) -> None:
        """Not ready any more, and whoever waits for a run is answered now."""
        await stopping.wait()
        self._readiness.drain()
        self._waker.drain()
        self._desk.drain()

    def _services(self, settings: Settings, pools: Pools, stopping: asyncio.Event) -> Services:
        lanes = RunLanes(TURN_SECONDS)
        flights = _flights(settings)
        for_tenants = TenantPools(pools.requests, max(1, settings.database_connections - flights))
        wake = self._notifier.wake
        alone, count = OneByOne(for_tenants, lanes, wake), self._metrics.shared_commits.add
        appender = Grouped(pools.flights, alone, wake, count)
        self.background += [appender.fly] * flights
        return Services(
            pools=for_tenants,
            lanes=lanes,
            windows=self._windows,
            waiting=WaitingPlaces(self.counts),
            unanswered=self._unanswered,
            appender=appender,
            waker=self._waker,
            desk=self._desk,
            signer=StreamTokenSigner(settings.signing_keys()),
            wake_publisher=self._notifier.wake,
            wake_workers=self._notifier.wake_workers,
            metrics=self._metrics,
            limits=Limits(
                request_bytes=settings.max_request_bytes,
                event_bytes=settings.max_event_bytes,
                payload_bytes=settings.max_payload_bytes,
                metadata_bytes=settings.max_metadata_bytes,
                events=settings.max_events,
                depth=settings.max_nesting,
                name_chars=settings.max_name_chars,
                page_bytes=settings.max_page_bytes,
                timeout_seconds=settings.timeout_seconds,
                idle_timeout_seconds=settings.idle_timeout_seconds,
                waiting_requests=settings.max_waiting_requests,
                active_runs=settings.max_active_runs,
                active_runs_of_key=settings.max_active_runs_per_key,
                events_per_run=settings.max_events_per_run,
            ),
            stream_url=settings.stream_url.rstrip("/"),
            draining=stopping,
        )


def _flights(settings: Settings) -> int:
    """Each has a connection of its own. Of the others, as many are left by tenants to keys and long polls."""
    return max(1, min(FLIGHTS, settings.database_connections // 4))


def _once_warm(
    check_database: Callable[[], Awaitable[None]], settings: Settings, pools: Pools
) -> Callable[[], Awaitable[None]]:
    """The check; after the first that found all well, connections are made, or were tried: a server that has just started is not ready before."""
    warm = False

    async def check() -> None:
        nonlocal warm
        await check_database()
        if not warm:
            await pools.flights.warm(_flights(settings))
            await pools.requests.warm(min(FIRST_CONNECTIONS, settings.database_connections))
            await pools.desk.warm(1)
            warm = True

    return check


def _clerks(settings: Settings) -> int:
    """Each has a connection of its own; one more is for the looks in the name of all who wait, and for what is given back."""
    return max(1, min(CLERKS, settings.database_connections // 2))


def _desk(pool: Pool, clerks: int) -> ClaimDesk:
    return ClaimDesk(
        lambda claim: claim_run(pool, claim),
        lambda claimed: give_back(pool, claimed),
        lambda pairs: find_pending(pool, pairs),
        _log.warning,
        clerks,
    )


def _rates(settings: Settings) -> dict[str, int | None]:
    """What a tenant without quotas of its own may use up; nothing here is no limit."""
    rates = {
        Quota.REQUESTS_PER_MINUTE: settings.requests_per_minute,
        Quota.EVENTS_PER_MINUTE: settings.events_per_minute,
        Quota.BYTES_PER_MINUTE: settings.bytes_per_minute,
    }
    return {quota: rate for quota, rate in rates.items() if rate is not None}


def _with_probes(api: AsgiApp, probes: dict[str, AsgiApp]) -> AsgiApp:
    async def route(scope: Any, receive: Any, send: Any) -> None:
        app = probes.get(scope.get("path", ""), api) if scope["type"] == "http" else api
        await app(scope, receive, send)

    return route


def _report_readiness(missing: list[str]) -> None:
    if missing:
        _log.warning(telemetry.NOT_READY, waiting_for=missing)
    else:
        _log.info(telemetry.READY)


def _report_counts(error: Transient | None) -> None:
    if error is None:
        _log.info(telemetry.COUNTS_BACK)
    else:
        _log.warning(telemetry.COUNTS_LOST, code=error.code)
