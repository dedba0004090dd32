"""The plain histogram: scraped, it is the one of prometheus_client."""

import pytest
from prometheus_client import CollectorRegistry, Histogram, generate_latest

from juinie_shared.runtime.histogram import PlainHistogram

BUCKETS = (0.001, 0.5, 1.0, 2.5)


def scraped(registry: CollectorRegistry) -> list[str]:
    return [line for line in generate_latest(registry).decode().splitlines() if "_created" not in line]


def test_what_is_scraped_is_what_prometheus_client_s_own_would_give() -> None:
    ours, theirs = CollectorRegistry(), CollectorRegistry()
    plain = PlainHistogram("juinie_wait_seconds", "How long.", BUCKETS, ours)
    own = Histogram("juinie_wait_seconds", "How long.", buckets=BUCKETS, registry=theirs)
    assert scraped(ours) == scraped(theirs)
    values = (0.0, 0.001, 0.0011, 0.5, 0.75, 2.5, 2.6, 100.0)
    for value in (*values, *values):
        own.observe(value)
    for value in values:
        plain.add(value)
    plain.add_all(values)
    assert scraped(ours) == scraped(theirs)
    assert 'juinie_wait_seconds_bucket{le="+Inf"} 16.0' in scraped(ours)


def test_a_name_that_is_taken_is_refused() -> None:
    registry = CollectorRegistry()
    PlainHistogram("juinie_wait_seconds", "How long.", BUCKETS, registry)
    with pytest.raises(ValueError, match="Duplicated"):
        PlainHistogram("juinie_wait_seconds", "How long.", BUCKETS, registry)
