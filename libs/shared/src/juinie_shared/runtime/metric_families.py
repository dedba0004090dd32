"""The metrics of several processes as one exposition: each sample with the label `process`, each family told once.

Exemplars and timestamps, which no metric of ours has, are not carried.
"""

from collections.abc import Iterable, Iterator, Mapping

import msgspec
from prometheus_client import CollectorRegistry, Metric

LABEL = "process"


class _Family(msgspec.Struct, array_like=True):
    name: str
    documentation: str
    kind: str
    unit: str
    samples: list[tuple[str, dict[str, str], float]]


def families_of(registry: CollectorRegistry) -> bytes:
    """All that a registry has at this moment, for `MergedRegistry`."""
    return msgspec.msgpack.encode([_family_of(metric) for metric in registry.collect()])


def _family_of(metric: Metric) -> _Family:
    samples = [(sample.name, sample.labels, float(sample.value)) for sample in metric.samples]
    return _Family(metric.name, metric.documentation, metric.type, metric.unit, samples)


class MergedRegistry:
    """What the encoders of prometheus_client take for a registry."""

    def __init__(self, families: Mapping[int, bytes], more: Iterable[Metric] = ()) -> None:
        """`families` by process; `more` as it is."""
        self._families, self._more = families, more

    def collect(self) -> Iterator[Metric]:
        """Each family once, its samples process by process."""
        merged: dict[str, Metric] = {}
        for process, encoded in sorted(self._families.items()):
            for family in msgspec.msgpack.decode(encoded, type=list[_Family]):
                metric = merged.get(family.name)
                if metric is None:
                    metric = merged[family.name] = Metric(
                        family.name, family.documentation, family.kind, family.unit
                    )
                for name, labels, value in family.samples:
                    metric.add_sample(name, {**labels, LABEL: str(process)}, value)
        yield from merged.values()
        yield from self._more
