"""Tells of refusals by the rate: each is counted, and a tenant's are one log line a second, however many there are."""

import asyncio
from collections import Counter

from juinie_api import telemetry
from juinie_shared.db.keys import Principal
from juinie_shared.domain.errors import LimitReached
from juinie_shared.domain.ids import TenantId
from juinie_shared.runtime.logs import get_logger

REPORT_SECONDS = 1.0

_log = get_logger("api")


class OverLimit:
    """`run()` it in a task."""

    def __init__(self, metrics: telemetry.Metrics) -> None:
        self._metrics = metrics
        self._since_report: Counter[tuple[TenantId, str]] = Counter()

    def refused(self, principal: Principal, error: LimitReached) -> None:
        self._metrics.over_limit.labels(error.code).inc()
        self._since_report[principal.tenant_id, error.code] += 1

    async def run(self) -> None:
        while True:
            await asyncio.sleep(REPORT_SECONDS)
            self.report()

    def report(self) -> None:
        for (tenant_id, code), count in self._since_report.items():
            _log.warning(telemetry.OVER_LIMIT, tenant_id=str(tenant_id), code=code, count=count)
        self._since_report.clear()
