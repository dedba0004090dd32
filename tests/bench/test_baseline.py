"""A counter that has become worse is found, one within its tolerance passes, and a renewal changes what is accepted."""

import json
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


ONE_MORE = {
    "append 1": 1,
    "append 20": 1 / 20,
    "append together": 1 / 64,
    "append": 0.05,
    "connect": 1,
    "deliver one_run": 1 / 200,
    "deliver many_runs": 1 / 199,
    "relay 1": 2 / 3,
    "relay 10": 1,
    "relay": 0.05,
}
"""Of a call, a statement, a block or a dead row for each append, watcher, event, window of the relay: what it adds, in the unit of these."""
IN_SHARES = {
    "python_steps", "allocations", "allocated_bytes", "bytes_written", "wal_bytes", "pss_kb", "system_calls", "connect blocks_kept",
}  # fmt: skip
"""Where there is no one of them: a tenth more is to be seen."""
BY_THE_CLOCK = {
    f"{path} {what}"
    for path, whats in {
        "relay 1": ("read_calls", "write_calls", "polls", "system_calls"),
        "relay 10": ("read_calls", "write_calls", "polls", "system_calls", "wal_bytes"),
    }.items()
    for what in whats
}
"""While the relay waits for Postgres and for Kafka, the publisher does other things: a third more is to be seen."""
HELD = json.loads((Path(__file__).parents[2] / "bench/baseline.json").read_text())


@pytest.mark.parametrize("name", HELD)
def test_a_tolerance_lets_no_call_more_pass_and_no_tenth_more(name: str):
    path, _, what = name.rpartition(" ")
    value, tolerance = HELD[name]["value"], HELD[name]["tolerance"]
    if name in BY_THE_CLOCK:
        assert 0 < tolerance <= value / 3
    elif {name, what} & IN_SHARES:
        assert 0 < tolerance <= value / 10
    else:
        assert 0 < tolerance < ONE_MORE[path]
