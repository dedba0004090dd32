"""Every span, metric and log-event name of the api. No run id, payload, key or token is ever a label."""

from dataclasses import dataclass

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.process_collector import ProcessCollector

from juinie_shared.runtime.gc_pauses import BUCKETS as GC_BUCKETS
from juinie_shared.runtime.histogram import PlainHistogram
from juinie_shared.runtime.loop_lag import BUCKETS as LAG_BUCKETS

SERVICE = "juinie-api"

# Log events.
REQUEST = "request"
REQUEST_FAILED = "request_failed"
STARTED = "started"
STOPPED = "stopped"
NOT_READY = "not_ready"
READY = "ready"
NOTIFY_LOST = "notify_connection_lost"
LISTEN_LOST = "listen_connection_lost"
CLAIMED = "run_claimed"
CLAIM_UNDELIVERED = "claim_not_delivered"
CLAIM_LOOK_FAILED = "claim_query_failed"
POLL_FAILED = "long_poll_query_failed"
OVER_LIMIT = "over_limit"
COUNTS_LOST = "counts_not_shared"
COUNTS_BACK = "counts_shared_again"

_APPENDS = (1, 2, 4, 8, 16, 32, 64)
_SECONDS = (0.001, 0.002, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)


@dataclass(frozen=True, slots=True)
class Metrics:
    """The api's metrics, in a registry of their own: tests run several services in one process."""

    registry: CollectorRegistry
    request_seconds: Histogram
    appended_events: Counter
    shared_commits: PlainHistogram
    created_runs: Counter
    finished_runs: Counter
    long_polls: Gauge
    claimed_runs: Counter
    waiting_claims: Gauge
    lost_leases: Counter
    notify_failures: Counter
    over_limit: Counter
    connections_refused: Counter
    unread_answers: Counter
    unread_bytes: Gauge
    unanswered_bytes: Gauge
    bodies_refused: Counter
    loop_lag: Histogram
    gc_pause: Histogram


def build_metrics() -> Metrics:
    registry = CollectorRegistry()
    ProcessCollector(registry=registry)
    return Metrics(
        registry=registry,
        request_seconds=Histogram(
            "juinie_api_request_seconds",
            "Time from a request's head to the end of its answer.",
            ("method", "route", "status"),
            registry=registry,
            buckets=_SECONDS,
        ),
        appended_events=Counter(
            "juinie_api_appended_events", "Run events that clients appended.", registry=registry
        ),
        shared_commits=PlainHistogram(
            "juinie_api_appends_in_a_commit",
            "Appends that were committed together; those that went alone are not counted.",
            _APPENDS,
            registry,
        ),
        created_runs=Counter("juinie_api_created_runs", "Runs that were created.", registry=registry),
        finished_runs=Counter(
            "juinie_api_finished_runs", "Runs that clients finished.", ("status",), registry=registry
        ),
        long_polls=Gauge("juinie_api_long_polls", "Requests that wait for a run.", registry=registry),
        claimed_runs=Counter(
            "juinie_api_claimed_runs", "Leases that were given.", ("by",), registry=registry
        ),
        waiting_claims=Gauge(
            "juinie_api_claims_waiting", "Workers that wait for a run to claim.", registry=registry
        ),
        lost_leases=Counter(
            "juinie_api_leases_lost", "Requests refused because their lease was lost.", registry=registry
        ),
        notify_failures=Counter(
            "juinie_api_notify_failures",
            "Wake-ups that were not sent; who waits for them polls behind them.",
            registry=registry,
        ),
        over_limit=Counter(
            "juinie_api_over_limit",
            "Requests refused because of a limit (429, and 409 run_full).",
            ("code",),
            registry=registry,
        ),
        connections_refused=Counter(
            "juinie_api_connections_refused", "Connections closed as one too many.", registry=registry
        ),
        unread_answers=Counter(
            "juinie_api_unread_answers",
            "Connections cut because their client did not read its answer.",
            registry=registry,
        ),
        unread_bytes=Gauge(
            "juinie_api_unread_bytes",
            "Bytes of answers that wait for clients to read them.",
            registry=registry,
        ),
        unanswered_bytes=Gauge(
            "juinie_api_unanswered_bytes",
            "Bytes of request bodies that are arriving, or not answered yet.",
            registry=registry,
        ),
        bodies_refused=Counter(
            "juinie_api_bodies_refused",
            "Bodies refused because too much was unanswered already (503 server_busy).",
            registry=registry,
        ),
        loop_lag=Histogram(
            "juinie_api_loop_lag_seconds",
            "By how much later than it should the event loop ran a timer.",
            registry=registry,
            buckets=LAG_BUCKETS,
        ),
        gc_pause=Histogram(
            "juinie_api_gc_pause_seconds",
            "How long the garbage collector stopped everything, each time: ten times a second or more, mostly for microseconds.",
            registry=registry,
            buckets=GC_BUCKETS,
        ),
    )
