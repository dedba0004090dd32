"""What grows under a steady load is found; what a pool takes as it fills, and what is there only under load, is not."""

from collections.abc import Callable, Sequence
from types import ModuleType

import pytest


@pytest.fixture
def steady(bench_module: Callable[[str], ModuleType]) -> ModuleType:
    return bench_module("steady")


def grown(steady: ModuleType, at_rest: Sequence[int], kind: str = "tasks", under_load: int = 1) -> list[str]:
    sample = steady.Sample(1, 1.0, {}, [0.001])
    minutes = [
        steady.Minute(sample, {"api": {kind: under_load * number}}, {"api": {kind: held}})
        for number, held in enumerate(at_rest, 1)
    ]
    return steady._thirds(minutes)[1]


@pytest.mark.parametrize("at_rest", [[20] * 9, [20] * 6 + [22] * 3, [30, 20, 20] * 3, [20] * 8 + [90]])
def test_what_stays_is_flat(steady, at_rest):
    assert grown(steady, at_rest) == []


@pytest.mark.parametrize("at_rest", [[20] * 6 + [23] * 3, range(20, 29)])
def test_what_grows_is_told(steady, at_rest):
    (told,) = grown(steady, at_rest)
    assert told.startswith("api at_rest tasks is not flat: 2")


@pytest.mark.parametrize(("kind", "a_run"), [("pss_bytes", 1_500), ("blocks", 12)])
def test_memory_that_grows_with_each_run_is_told(steady, kind, a_run):
    """A hundred of them a minute, and six minutes between the middles of the two thirds."""
    assert grown(steady, [100_000_000] * 6 + [100_000_000 + a_run * 600] * 3, kind) == []
    assert len(grown(steady, [100_000_000] * 6 + [100_000_001 + a_run * 600] * 3, kind)) == 1


def test_few_minutes_tell_nothing(steady):
    assert grown(steady, [20] * 8) == ["8 minutes after the first ones are too few to tell what grows"]


def test_what_is_there_under_load_is_not_judged(steady):
    assert grown(steady, [20] * 9, under_load=100) == []


def test_the_longest_pause_is_the_bound_of_the_bucket_that_has_them_all(steady):
    lines = [
        'juinie_x_gc_pause_seconds_bucket{le="0.001"} 5.0',
        'juinie_x_gc_pause_seconds_bucket{le="0.01"} 7.0',
        'juinie_x_gc_pause_seconds_bucket{le="+Inf"} 7.0',
    ]
    assert steady._longest(lines, 7.0) == 0.01
    assert steady._longest([*lines[:1], lines[2]], 7.0) == float("inf")
