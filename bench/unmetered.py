"""A service whose metrics do nothing: to see what they cost. `BENCH_MODULE` names it."""

import os
import runpy
from typing import Any

from prometheus_client import Counter, Gauge, Histogram

from juinie_shared.runtime.histogram import PlainHistogram


def _nothing(*_: object, **__: object) -> None:
    pass


def _itself(self: Any, *_: object, **__: object) -> Any:
    return self


def forget_metrics() -> None:
    """Calls stay, and what they would do is gone."""
    for metric, methods in (
        (Counter, ("inc",)),
        (Gauge, ("inc", "dec", "set")),
        (Histogram, ("observe",)),
        (PlainHistogram, ("add", "add_all")),
    ):
        for method in methods:
            setattr(metric, method, _nothing)
    for metric in (Counter, Gauge, Histogram):
        metric.labels = _itself


if __name__ == "__main__":
    forget_metrics()
    runpy.run_module(os.environ["BENCH_MODULE"], run_name="__main__", alter_sys=True)
