"""What a measurement says of itself: in its table, and in what is kept."""

from collections.abc import Callable
from types import ModuleType
from typing import Any

import pytest


@pytest.fixture
def program(bench_module: Callable[[str], ModuleType]) -> Any:
    return bench_module("__main__")


@pytest.fixture
def measured(bench_module: Callable[[str], ModuleType]) -> Callable[..., Any]:
    rounds: Any = bench_module("rounds")

    def measured(micros: dict[str, float], latencies: list[float]) -> Any:
        samples = {
            side: [rounds.Sample(1000, 1.0, {"service": cost / 1000}, latencies)]
            for side, cost in micros.items()
        }
        return rounds.Measured("delivery", samples)

    return measured


def test_the_table_has_the_greatest_latency_beside_the_quantiles(program, measured):
    told = program.told(measured({"juinie": 8.0}, [0.001] * 99 + [0.25]))
    assert "p50 1.0 ms, p99 1.0 ms, max 250.0 ms" in told


def test_without_latencies_none_are_told(program, measured):
    assert " ms" not in program.told(measured({"juinie": 8.0}, []))


def test_what_is_measured_twice_is_told_as_a_ratio(program, measured):
    assert "again / few runs: 1.250" in program.told(
        measured({"few runs": 8.0, "again": 10.0}, []), growing=True
    )


def test_several_lingers_can_be_asked_for(program):
    parse = program._parser().parse_args
    assert parse(["fan-out"]).linger == [0.0]
    assert parse(["fan-out", "--linger", "0,0.01,0"]).linger == [0.0, 0.01]
