"""Every span, metric and log-event name of the publisher."""

import time
from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Literal

from opentelemetry import trace
from opentelemetry.trace import SpanKind
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from juinie_shared.runtime.gc_pauses import BUCKETS as GC_BUCKETS
from juinie_shared.runtime.histogram import PlainHistogram
from juinie_shared.runtime.logs import get_logger
from juinie_shared.runtime.loop_lag import BUCKETS as LAG_BUCKETS
from juinie_shared.runtime.tracing import current_traceparent, link_sampled, recorded_span

PUBLISH_SPAN = "juinie.run-events publish"
SWEEP_SPAN = "sweep"

_QUIET = frozenset({"over", "later"})
"""Verdicts that nobody outside learns of."""

_LATENCIES = (0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0, 60.0, 300.0)

type Part = Literal[
    "relay", "dead_letters", "duties", "sweep", "notify", "overdue", "retention", "purge", "backlog"
]
"""Where something failed. `overdue` and `backlog` are what gauges are made from."""


STUCK_SECONDS = 10.0
"""For so long tries of the relay fail, and no row is acknowledged: no longer a hiccup."""


class Telemetry:
    """What the publisher tells of itself. No payload, key, token or run id in a label."""

    def __init__(self, tracer: trace.Tracer, registry: CollectorRegistry) -> None:
        self._tracer = tracer
        self._log = get_logger("publisher")
        self._kafka_is_away: bool | None = None
        self._is_listening: bool | None = None
        self._recording: bool | None = None
        self._paused = False
        self._failing_since: float | None = None
        self._stuck = False
        self._events_since_summary = 0
        self._rows_since_summary = 0
        self._runs_held_back = 0
        self._pending = Gauge("juinie_outbox_pending", "Outbox rows not yet published.", registry=registry)
        self._oldest = Gauge(
            "juinie_outbox_oldest_age_seconds", "Age of the oldest outbox row; 0 when there is none.", registry=registry
        )  # fmt: skip
        self._published = Counter(
            "juinie_outbox_published", "Run events that Kafka has acknowledged.", registry=registry
        )
        self._latency = PlainHistogram(
            "juinie_append_to_publish_seconds", "From the append to Kafka's acknowledgement.", _LATENCIES, registry
        )  # fmt: skip
        self._rounds = Counter(
            "juinie_relay_rounds", "Rounds of the relay that found rows.", registry=registry
        )
        self._failures = Counter(
            "juinie_publisher_failures", "What failed and is tried again, by the part that it failed in, and reason.",
            ["part", "reason"], registry=registry,
        )  # fmt: skip
        self._missing = Counter(
            "juinie_relay_events_missing", "Events of an outbox row that were purged before they were published.",
            registry=registry,
        )  # fmt: skip
        self._dead_letters = Gauge(
            "juinie_dead_letters", "Events that could not be sent and wait for somebody's decision.", registry=registry
        )  # fmt: skip
        self._parked = Counter(
            "juinie_dead_letters_parked", "Events set aside because they can never be sent as they are, by reason.",
            ["reason"], registry=registry,
        )  # fmt: skip
        self._held_back = Gauge(
            "juinie_relay_runs_held_back", "Runs that wait for a partition that is slow or fails.", registry=registry
        )  # fmt: skip
        self._is_paused = Gauge(
            "juinie_relay_paused", "1 while the relay is paused by an operator.", registry=registry
        )
        self._shards = Gauge(
            "juinie_publisher_shards", "Shards of the outbox that this publisher holds.", registry=registry
        )
        self._lost = Counter(
            "juinie_duties_lost", "Shards and other duties whose lease another publisher took over.", registry=registry
        )  # fmt: skip
        self._purged = Counter(
            "juinie_runs_purged", "Deleted runs whose last row has been removed.", registry=registry
        )
        self._events_removed = Counter(
            "juinie_retention_events", "Events of finished runs that were removed, as their tenant asked for.",
            registry=registry,
        )  # fmt: skip
        self._runs_buried = Counter(
            "juinie_retention_runs", "Finished runs that were hidden, to be purged, as their tenant asked for.",
            registry=registry,
        )  # fmt: skip
        self._not_removed = Counter(
            "juinie_retention_failures", "Batches of a tenant's old events or runs that could not be removed.",
            registry=registry,
        )  # fmt: skip
        self._swept = Counter(
            "juinie_sweep_runs", "Runs that were due and looked at, by what became of them.", ["verdict"],
            registry=registry,
        )  # fmt: skip
        self._not_swept = Counter(
            "juinie_sweep_failures", "Runs that could not be swept, and were put off.", registry=registry
        )
        self._overdue = Gauge(
            "juinie_runs_overdue", "Runs that have been due for over five seconds and that nobody has swept.",
            registry=registry,
        )  # fmt: skip

        self._loop_lag = Histogram(
            "juinie_publisher_loop_lag_seconds", "By how much later than it should the event loop ran a timer.",
            buckets=LAG_BUCKETS, registry=registry,
        )  # fmt: skip
        self._gc_pause = Histogram(
            "juinie_publisher_gc_pause_seconds", "How long the garbage collector stopped everything, each time: ten times a second or more, mostly for microseconds.",
            buckets=GC_BUCKETS, registry=registry,
        )  # fmt: skip

    def gc_paused(self, seconds: float) -> None:
        self._gc_pause.observe(seconds)

    def loop_was_late(self, seconds: float) -> None:
        self._loop_lag.observe(seconds)

    @contextmanager
    def round(self) -> Generator[Callable[[Iterable[str | None], int], None]]:
        """One relay round that found rows: a producer span. Once they are on their way it is given the `traceparent` of each, to
        link to the appends that it carries, and the number of records: nobody waits for that.
        """
        self._rounds.inc()
        attributes = {"messaging.system": "kafka", "messaging.operation.name": "publish"}
        with recorded_span(self._tracer, PUBLISH_SPAN, SpanKind.PRODUCER, attributes) as span:
            yield partial(_carries, span)

    def published(self, ages_at_fetch: Sequence[float], fetched_at: float, records: int) -> None:
        """Rows of these ages were acknowledged just now."""
        if not ages_at_fetch:
            return
        self.relay_goes_on()
        since_fetch = time.monotonic() - fetched_at
        self._latency.add_all([age + since_fetch for age in ages_at_fetch])
        self._published.inc(records)
        self._rows_since_summary += len(ages_at_fetch)
        self._events_since_summary += records
        self._log.debug("batch_published", rows=len(ages_at_fetch), events=records, duration_seconds=round(since_fetch, 6))  # fmt: skip

    def failed(self, part: Part, error: BaseException) -> None:
        """Something passing failed; it is tried again."""
        self._failures.labels(part=part, reason=_reason(error)).inc()
        self._log.debug("try_failed", part=part, reason=_reason(error))
        if part == "relay":
            self._relay_failed(_reason(error))

    def relay_goes_on(self) -> None:
        """It has sent something, or has nothing to send."""
        if self._stuck:
            self._log.info("relay_goes_on")
        self._failing_since, self._stuck = None, False

    def _relay_failed(self, reason: str) -> None:
        now = time.monotonic()
        if self._failing_since is None:
            self._failing_since = now
        if not self._stuck and now - self._failing_since >= STUCK_SECONDS:
            self._stuck = True
            self._log.warning("relay_stuck", reason=reason)

    def kafka_is(self, away: bool, reason: str = "") -> None:
        """Kafka answered, or did not. Told in the log when it changes."""
        if away == self._kafka_is_away:
            return
        if away:
            self._log.warning("kafka_away", reason=reason)
        elif self._kafka_is_away is not None:
            self._log.info("kafka_back")
        self._kafka_is_away = away

    def events_missing(self, run_id: object, first_seq: int, last_seq: int, count: int) -> None:
        self._missing.inc(count)
        self._log.warning("events_missing", run_id=str(run_id), first_seq=first_seq, last_seq=last_seq, count=count)  # fmt: skip

    def backlog(self, pending: int, oldest_age_seconds: float, dead_letters: int) -> None:
        self._pending.set(pending)
        self._oldest.set(oldest_age_seconds)
        self._dead_letters.set(dead_letters)

    def held_back(self, runs: int) -> None:
        """How many runs wait for a partition that is slow or fails."""
        if runs != self._runs_held_back:
            self._runs_held_back = runs
            self._held_back.set(runs)

    def parked(self, run_id: object, seq: int, reason: str) -> None:
        """An event can never be sent as it is, and was set aside."""
        self._parked.labels(reason=reason).inc()
        self._log.error("dead_letter", run_id=str(run_id), seq=seq, reason=reason)

    def dead_letters_are_recorded(self, yes: bool, reason: str = "") -> None:
        """The topic of dead letters takes their records, or does not. Told in the log when it changes."""
        if yes == self._recording:
            return
        if not yes:
            self._log.warning("dead_letters_not_recorded", reason=reason)
        elif self._recording is not None:
            self._log.info("dead_letters_recorded")
        self._recording = yes

    def paused(self, yes: bool) -> None:
        """The relay is paused for the whole installation, or goes on."""
        if yes != self._paused:
            self._log.warning("relay_paused" if yes else "relay_resumed")
        self._paused = yes
        self._is_paused.set(yes)

    def summary(self) -> None:
        """One line of what was published since the last one; none when nothing was."""
        if self._events_since_summary:
            self._log.info(
                "outbox_published", rows=self._rows_since_summary, events=self._events_since_summary
            )
        self._rows_since_summary = self._events_since_summary = 0

    def duties_are(self, shards: int, others: Sequence[str]) -> None:
        """What this publisher holds has changed to this."""
        self._shards.set(shards)
        self._log.info("duties_changed", shards=shards, others=list(others))

    def duties_lost(self, names: Sequence[str]) -> None:
        """Another publisher has taken these over: we were not heard of for the length of a lease."""
        self._lost.inc(len(names))
        self._log.warning("lease_lost", duties=list(names))

    def run_purged(self) -> None:
        self._purged.inc()

    def events_removed(self, tenant_id: object, events: int, runs: int) -> None:
        if runs:
            self._events_removed.inc(events)
            self._log.info("events_removed", tenant_id=str(tenant_id), events=events, runs=runs)

    def runs_buried(self, tenant_id: object, runs: int) -> None:
        if runs:
            self._runs_buried.inc(runs)
            self._log.info("runs_buried", tenant_id=str(tenant_id), runs=runs)

    def not_removed(self, tenant_id: object, error: BaseException) -> None:
        self._not_removed.inc()
        self._log.error("retention_failed", tenant_id=str(tenant_id), reason=_reason(error))

    def sweep_span(self, events: int) -> str | None:
        """A span for the run events that a sweep is about to write. Gives the `traceparent` that they carry."""
        with self._tracer.start_as_current_span(SWEEP_SPAN, attributes={"juinie.events": events}):
            return current_traceparent()

    def swept(self, verdicts: Mapping[str, int]) -> None:
        """A batch of due runs was looked at, and what was decided is committed."""
        for verdict, count in verdicts.items():
            self._swept.labels(verdict=verdict).inc(count)
        if set(verdicts) - _QUIET:
            self._log.info("runs_swept", **verdicts)
        elif verdicts:
            self._log.debug("runs_swept", **verdicts)

    def not_swept(self, run_id: object, error: BaseException) -> None:
        self._not_swept.inc()
        self._log.error("run_not_swept", run_id=str(run_id), reason=_reason(error))

    def overdue(self, runs: int) -> None:
        self._overdue.set(runs)

    def started(self, port: int) -> None:
        self._log.info("started", port=port)

    def stopped(self) -> None:
        self.summary()
        self._log.info("stopped")

    def waiting_for(self, missing: Sequence[str]) -> None:
        if missing:
            self._log.warning("not_ready", waiting_for=list(missing))
        else:
            self._log.info("ready")

    def topic_created(self, topic: str, partitions: int) -> None:
        self._log.info("topic_created", topic=topic, partitions=partitions)

    def listening(self, yes: bool) -> None:
        """Woken by Postgres, or only by the clock. Told in the log when it changes."""
        if yes != self._is_listening:
            self._log.info("outbox_listening" if yes else "outbox_polling")
        self._is_listening = yes


def _carries(span: trace.Span, traceparents: Iterable[str | None], records: int) -> None:
    """So many records of these appends."""
    span.set_attribute("messaging.batch.message_count", records)
    link_sampled(span, traceparents)


def _reason(error: BaseException) -> str:
    return type(error.__cause__ or error).__name__
