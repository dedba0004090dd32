"""The metrics of several processes as one exposition: each sample with the label `process`, each family told once.

Exemplars and timestamps, which no metric of ours has, are not carried.
"""

from collections.abc import Iterable, Iterator, Mapping

import msgspec
from prometheus_client import CollectorRegistry, Metric

LABEL = "process"


class Family(msgspec.Struct, array_like=True):
    """What `prometheus_client.Metric` holds, as it travels between siblings."""

    name: str
    documentation: str
    kind: str
    unit: str
    samples: list[tuple[str, dict[str, str], float]]


def families_of(registry: CollectorRegistry) -> list[Family]:
    """All that a registry has at this moment, for `MergedRegistry`."""
    return [_family_of(metric) for metric in registry.collect()]


def encode_families(families: list[Family]) -> bytes:
    """For a sibling."""
    return msgspec.msgpack.encode(families)


def decode_families(encoded: bytes) -> list[Family]:
    """Raises `msgspec.DecodeError` for what is not whole, or of another form."""
    return msgspec.msgpack.decode(encoded, type=list[Family])


def _family_of(metric: Metric) -> Family:
    samples = [(sample.name, sample.labels, float(sample.value)) for sample in metric.samples]
    return Family(metric.name, metric.documentation, metric.type, metric.unit, samples)


class MergedRegistry:
    """What the encoders of prometheus_client take for a registry."""

    def __init__(self, families: Mapping[int, list[Family]], more: Iterable[Metric] = ()) -> None:
        """`families` by process; `more` as it is."""
        self._families, self._more = families, more

    def collect(self) -> Iterator[Metric]:
        """Each family once, its samples process by process."""
        merged: dict[str, Metric] = {}
        for process, families in sorted(self._families.items()):
            for family in families:
                metric = merged.get(family.name)
                if metric is None:
                    metric = merged[family.name] = Metric(
                        family.name, family.documentation, family.kind, family.unit
                    )
                for name, labels, value in family.samples:
                    metric.add_sample(name, {**labels, LABEL: str(process)}, value)
        yield from merged.values()
        yield from self._more
