"""A counter that has become worse is found, one within its tolerance passes, and a renewal changes what is accepted."""

from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest


@pytest.fixture
def baseline(bench_module: Callable[[str], ModuleType]) -> ModuleType:
    return bench_module("baseline")


def verdict(baseline: ModuleType, counted: float):
    accepted = {"append round_trips": baseline.Accepted(2.0, "an event", 0.1)}
    (only,) = baseline.compared(accepted, {"append round_trips": baseline.Counted(counted, "an event")})
    return only


def test_more_than_the_tolerance_is_worse(baseline: ModuleType):
    assert verdict(baseline, 2.11).worse
    assert "WORSE" in baseline.table([verdict(baseline, 2.11)])


@pytest.mark.parametrize("counted", [2.09, 2.0, 1.0, 0.0])
def test_as_much_as_the_tolerance_or_less_passes(baseline: ModuleType, counted: float):
    assert not verdict(baseline, counted).worse


def test_less_by_more_than_the_tolerance_is_told(baseline: ModuleType):
    assert verdict(baseline, 1.8).better
    assert not verdict(baseline, 1.95).better


def test_what_nobody_accepted_and_what_is_gone_do_not_pass(baseline: ModuleType):
    accepted = {"gone": baseline.Accepted(1.0, "an event", 0.1)}
    verdicts = baseline.compared(accepted, {"new": baseline.Counted(1.0, "an event")})
    assert [(one.name, one.worse) for one in verdicts] == [("gone", True), ("new", True)]


def test_a_renewal_takes_the_values_of_now_and_keeps_tolerances(
    baseline: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(baseline, "FILE", tmp_path / "baseline.json")
    assert baseline.read() == {}
    counted = {"old": baseline.Counted(3.0, "an event"), "new": baseline.Counted(40.0, "a delivery")}
    baseline.write(baseline.renewed({"old": baseline.Accepted(2.0, "an event", 0.5)}, counted))
    assert baseline.read() == {
        "new": baseline.Accepted(40.0, "a delivery", 2.0),
        "old": baseline.Accepted(3.0, "an event", 0.5),
    }
