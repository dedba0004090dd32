"""What a tenant or a key may use up: a number for each quota, by its name.

A quota that is absent has the default of the service's settings, where there is one, or is no limit. One that is
None is no limit, whatever the default.
"""

from collections.abc import Mapping
from enum import StrEnum

type Quotas = Mapping[str, int | None]

LARGEST = 10**15


class Quota(StrEnum):
    """The names, as they are stored and as the command line has them."""

    REQUESTS_PER_MINUTE = "requests_per_minute"
    EVENTS_PER_MINUTE = "events_per_minute"
    BYTES_PER_MINUTE = "bytes_per_minute"
    ACTIVE_RUNS = "active_runs"
    EVENTS_PER_RUN = "events_per_run"
    WAITING_REQUESTS = "waiting_requests"
    STREAMS = "streams"
    STREAMS_PER_RUN = "streams_per_run"


TENANT_QUOTAS = tuple(Quota)
KEY_QUOTAS = (
    Quota.REQUESTS_PER_MINUTE,
    Quota.EVENTS_PER_MINUTE,
    Quota.BYTES_PER_MINUTE,
    Quota.ACTIVE_RUNS,
    Quota.STREAMS,
)


def limit_of(quotas: Quotas, quota: Quota, default: int | None = None) -> int | None:
    """The limit that holds; None: there is none."""
    return quotas.get(quota, default)
