"""Probes of several processes: whichever is asked answers for all, within its time."""

import asyncio
import os
import socket
from collections.abc import AsyncGenerator
from typing import Any

import msgspec
import pytest
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families as parse_text

from juinie_shared.runtime.metric_families import LABEL
from juinie_shared.runtime.probes import Probes
from juinie_shared.runtime.sibling import Sibling
from juinie_testkit.waits import eventually

OPENMETRICS = "application/openmetrics-text; version=1.0.0"
READY = {"ready": True, "waiting_for": []}


class Service:
    """A process as its probes see it: what it waits for, and metrics of all kinds."""

    def __init__(self, sibling: Sibling | None = None, hits: int = 0) -> None:
        self.missing: list[str] = []
        registry = CollectorRegistry()
        Counter("hits", "What\nwas hit.", ("by",), registry=registry).labels('"\n\\').inc(hits)
        Gauge("heat", "How hot it is.", registry=registry).set(float("nan"))
        Histogram("wait_seconds", "How long.", registry=registry, buckets=(1, 2)).observe(hits)
        self.probes = Probes(self._readiness, registry, sibling)

    async def _readiness(self) -> list[str]:
        return self.missing

    async def ask(self, path: str, accept: str = "") -> tuple[int, bytes]:
        """Status and body."""
        sent: list[dict[str, Any]] = []

        async def send(message: dict[str, Any]) -> None:
            sent.append(message)

        await self.probes.apps[path]({"headers": [(b"accept", accept.encode())]}, None, send)
        return sent[0]["status"], sent[1]["body"]

    async def ready(self) -> tuple[int, Any]:
        status, body = await self.ask("/readyz")
        return status, msgspec.json.decode(body)


def siblings(count: int) -> list[Sibling]:
    name = f"\0juinie-test-{os.getpid()}-{os.urandom(8).hex()}-"
    return [Sibling(index, count, os.getpid(), -1, -1, name) for index in range(count)]


@pytest.fixture
async def both() -> AsyncGenerator[tuple[Service, Service]]:
    """Two processes of a service that answer each other."""
    services = [Service(sibling, hits=index + 1) for index, sibling in enumerate(siblings(2))]
    answering = [asyncio.create_task(service.probes.run()) for service in services]

    async def all_ready() -> bool:
        return all([(await service.ready())[0] == 200 for service in services])

    await eventually(all_ready, 10, "they answer each other")
    yield services[0], services[1]
    for task in answering:
        task.cancel()
    await asyncio.wait(answering)


async def test_service_is_ready_when_all_its_processes_are(both: tuple[Service, Service]):
    for asked in both:
        assert await asked.ready() == (200, READY)
    both[1].missing = ["The database does not answer."]
    for asked in both:
        assert await asked.ready() == (
            503, {"ready": False, "waiting_for": ["Process 1: The database does not answer."]},
        )  # fmt: skip
        assert (await asked.ask("/livez"))[0] == 200


@pytest.mark.parametrize(("accept", "parse"), [("", parse_text), (OPENMETRICS, parse_openmetrics)])
async def test_metrics_are_those_of_all_processes_each_family_told_once(both, accept: str, parse: Any):
    texts = [(await asked.ask("/metrics", accept))[1].decode() for asked in both]
    for text in texts:
        told = [line.split()[2] for line in text.splitlines() if line.startswith("# TYPE")]
        assert len(told) == len(set(told))
        families = {family.name: family for family in parse(text)}
        hits = [sample for sample in families["hits"].samples if sample.name == "hits_total"]
        assert [(sample.labels, sample.value) for sample in hits] == [
            ({"by": '"\n\\', LABEL: "0"}, 1.0), ({"by": '"\n\\', LABEL: "1"}, 2.0)
        ]  # fmt: skip
        assert families["hits"].documentation == "What\nwas hit."
        assert {sample.labels[LABEL] for family in families.values() for sample in family.samples} == {
            "0",
            "1",
        }
        answers = {
            sample.labels[LABEL]: sample.value for sample in families["juinie_process_answers"].samples
        }
        assert answers == {"0": 1.0, "1": 1.0}


async def test_process_without_siblings_adds_nothing_to_its_metrics():
    text = (await Service(hits=1).ask("/metrics"))[1].decode()
    assert LABEL not in text


async def test_sibling_that_is_not_there_is_missing_and_restarts_nothing():
    alone = Service(siblings(2)[1])
    assert await alone.ready() == (
        503, {"ready": False, "waiting_for": ["Process 0: It is not there; it is started."]}
    )  # fmt: skip
    assert await alone.ask("/livez") == (200, b'{"status":"ok"}')
    assert 'juinie_process_answers{process="0"} 0.0' in (await alone.ask("/metrics"))[1].decode()


async def test_sibling_that_hangs_is_told_and_holds_up_no_answer():
    places = siblings(2)
    asked = Service(places[0], hits=3)
    with socket.socket(socket.AF_UNIX) as deaf:
        deaf.bind(places[1].address_of(1))
        deaf.listen()
        assert await asked.ready() == (
            503, {"ready": False, "waiting_for": ["Process 1: It does not answer."]}
        )  # fmt: skip
        assert await asked.ask("/livez") == (503, b'{"status":"hangs","processes":[1]}')
        text = (await asked.ask("/metrics"))[1].decode()
    assert 'juinie_process_answers{process="1"} 0.0' in text
    assert 'wait_seconds_count{process="0"} 1.0' in text
