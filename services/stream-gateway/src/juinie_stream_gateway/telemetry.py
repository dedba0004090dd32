"""Every span, metric and log event of the stream gateway, by name. Listed in docs/reference/telemetry.md."""

from opentelemetry.sdk.trace import TracerProvider
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from juinie_shared.runtime.gc_pauses import BUCKETS as GC_BUCKETS
from juinie_shared.runtime.histogram import PlainHistogram
from juinie_shared.runtime.loop_lag import BUCKETS as LAG_BUCKETS
from juinie_shared.runtime.unrecorded import QuickTracer

SERVICE = "juinie-stream-gateway"

SPAN_STREAM = "stream"
SPAN_POLL = "poll"

LOG_STREAM_ENDED = "stream_ended"
LOG_STREAM_REFUSED = "stream_refused"
LOG_STREAM_FAILED = "stream_failed"
LOG_KAFKA_LIVE = "kafka_live"
LOG_KAFKA_AWAY = "kafka_away"
LOG_KAFKA_POSITION_LOST = "kafka_position_lost"
LOG_NOT_READY = "not_ready"
LOG_READY = "ready"
LOG_DRAINING = "draining"
LOG_CHECK_FAILED = "check_failed"
LOG_CHECK_WORKS = "check_works_again"
LOG_COUNTS_LOST = "counts_not_shared"
LOG_COUNTS_BACK = "counts_shared_again"

LATENCY_BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0)


class Telemetry:
    """The metrics of one gateway, on a registry of its own, and its tracer."""

    def __init__(self, provider: TracerProvider) -> None:
        self.tracer = QuickTracer(provider, SERVICE)
        self.registry = CollectorRegistry()
        self.streams_open = Gauge("juinie_streams_open", "Streams open now.", registry=self.registry)
        self.unsent_bytes = Gauge(
            "juinie_stream_unsent_bytes",
            "Bytes held for watchers that have not read them.",
            registry=self.registry,
        )
        self.streams_closed = Counter(
            "juinie_streams_closed_total", "Streams closed, by reason.", ["reason"], registry=self.registry
        )
        self.connections_refused = Counter(
            "juinie_stream_connections_refused_total",
            "Connections closed as one too many.",
            registry=self.registry,
        )
        self.handed_over = Counter(
            "juinie_stream_handed_over_total",
            "Connections handed to the sibling that reads their run's partition.",
            registry=self.registry,
        )
        self.append_to_socket = PlainHistogram(
            "juinie_append_to_socket_seconds",
            "From an event's time to its frame handed to the socket.",
            LATENCY_BUCKETS,
            self.registry,
        )
        self.gap_refills = Counter(
            "juinie_stream_gap_refills_total",
            "Pages read because Kafka left something out, or is away.",
            registry=self.registry,
        )
        self.backfill_pages = Counter(
            "juinie_stream_backfill_pages_total",
            "Pages read for watchers that were behind.",
            registry=self.registry,
        )
        self.records = Counter(
            "juinie_stream_records_total",
            "Records of watched runs, by what became of them.",
            ["verdict"],
            registry=self.registry,
        )
        self.position_lost = Counter(
            "juinie_stream_kafka_position_lost_total",
            "Times that Kafka no longer had what was to be read next.",
            registry=self.registry,
        )
        self.check_failures = Counter(
            "juinie_stream_check_failures_total",
            "Looks at Postgres for all open streams together that failed and come again, by what they look for.",
            ["check"],
            registry=self.registry,
        )
        self.loop_lag = Histogram(
            "juinie_stream_loop_lag_seconds",
            "By how much later than it should the event loop ran a timer.",
            buckets=LAG_BUCKETS,
            registry=self.registry,
        )
        self.gc_pause = Histogram(
            "juinie_stream_gc_pause_seconds",
            "How long the garbage collector stopped everything, each time: ten times a second or more, mostly for microseconds.",
            buckets=GC_BUCKETS,
            registry=self.registry,
        )
        self._mode = Gauge(
            "juinie_stream_mode",
            "1 for where live events come from: live (Kafka) or postgres.",
            ["mode"],
            registry=self.registry,
        )
        self.mode(live=False)

    def mode(self, live: bool) -> None:
        """Where live events come from now."""
        self._mode.labels("live").set(live)
        self._mode.labels("postgres").set(not live)
