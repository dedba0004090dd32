"""Which ways a bench has: what is compared is measured in one run, and the first of it twice."""

from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from types import ModuleType, SimpleNamespace
from typing import Any
from uuid import uuid4

import pytest


@pytest.fixture
def load(bench_module: Callable[[str], ModuleType], monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Any]:
    """A module of the benches, whose rounds are over at once."""

    def load(name: str) -> Any:
        module = bench_module(name)

        async def by_turns(unit: str, sides: Sequence[Any], *_: object) -> Any:
            return module.Measured(unit, {side.name: [] for side in sides})

        monkeypatch.setattr(module, "by_turns", by_turns)
        return module

    return load


@asynccontextmanager
async def nothing_with(**attributes: Any) -> AsyncGenerator[Any]:
    yield SimpleNamespace(**attributes)


async def some_runs(*_: object) -> list[Any]:
    return [uuid4()]


def told(_: str) -> None:
    pass


async def test_each_linger_is_a_gateway_on_a_topic_of_its_own_and_the_memory_of_its_watchers_is_kept(
    load, monkeypatch
):
    fan_out = load("fan_out")
    started: list[tuple[str, str]] = []
    made: list[str] = []

    @asynccontextmanager
    async def juinie(
        _world: object,
        name: str,
        _runs: object,
        _shape: object,
        settings: Mapping[str, str],
        _told: object,
        topic: str,
    ) -> AsyncGenerator[Any]:
        assert settings["JUINIE_KAFKA_TOPIC"] == topic
        started.append((settings["JUINIE_STREAM_LINGER_SECONDS"], topic))
        yield fan_out.Side(name, told), 6_000.0 + len(started)

    async def create_topic(_servers: str, topic: str, partitions: int) -> None:
        made.append(f"{topic} of {partitions}")

    monkeypatch.setattr(fan_out, "juinie", juinie)
    monkeypatch.setattr(fan_out, "create_topic", create_topic)
    monkeypatch.setattr(fan_out, "floor", lambda *_: nothing_with(name="floor"))
    world = SimpleNamespace(runs=some_runs, kafka=SimpleNamespace(bootstrap="x"), partitions=3)
    measured = await fan_out.measure(world, fan_out.Shape(1, 1, 1, 1.0, 1), 1, told, lingers=[0.0, 0.01])
    assert list(measured.samples) == ["juinie", "linger 0.01 s", "again", "floor"]
    assert started == [("0.0", fan_out.TOPIC), ("0.01", f"{fan_out.TOPIC}.1")]
    assert made == [f"{fan_out.TOPIC}.1 of 3"]
    assert measured.facts == {
        "pss_bytes_a_watcher, juinie": 6_001.0,
        "pss_bytes_a_watcher, linger 0.01 s": 6_002.0,
    }


async def test_storms_are_measured_twice(load, monkeypatch):
    storm = load("storm")
    monkeypatch.setattr(storm.Stack, "open", lambda: nothing_with(world=None))
    monkeypatch.setattr(storm, "_watched", lambda *_: nothing_with())
    monkeypatch.setattr(storm, "store", some_runs)
    monkeypatch.setattr(storm.Returning, "to", lambda *_: nothing_with())
    wanted = storm.Wanted(1, 1, 1)
    assert list((await storm.reconnects(wanted, told)).samples) == [
        "watched runs",
        "few runs",
        "apart",
        "again",
    ]
    assert list((await storm.crowds(wanted, told)).samples) == ["one run", "many runs", "again"]


async def test_reads_are_measured_twice(load, monkeypatch):
    storm = load("storm")

    async def close() -> None:
        pass

    async def pool(*_: object, **__: object) -> Any:
        return SimpleNamespace(close=close)

    monkeypatch.setattr(storm, "World", lambda: nothing_with(postgres=SimpleNamespace(url="")))
    monkeypatch.setattr(storm, "store", some_runs)
    monkeypatch.setattr(storm, "open_pool", pool)
    monkeypatch.setattr(storm.asyncpg, "create_pool", pool)
    monkeypatch.setattr(storm, "FEW_RUNS", 1)
    sides = list((await storm.reads(storm.Wanted(1, 1, 1), told)).samples)
    assert sides == ["few runs", "apart", "a query each", "rows each", "again"]
