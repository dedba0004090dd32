"""`make check` fails where a counter became worse, and says what it could not count."""

from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

BENCH = Path(__file__).parents[2] / "bench"


@pytest.fixture
def counters(bench_module: Callable[[str], ModuleType], monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(BENCH)
    monkeypatch.delenv("JUINIE_REQUIRE_COUNTERS", raising=False)
    module = bench_module("counters")
    monkeypatch.setattr(module.sys, "platform", "linux")
    return module


@pytest.fixture
def count(counters: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[..., None]:
    """Has these values accepted, by name, and others counted."""

    def prepare(accepted: dict[str, float], counted: dict[str, float], **missing: str) -> None:
        async def counts(tools: Any) -> object:
            tools.missing |= missing
            return {name: counters.Counted(value, "an event") for name, value in counted.items()}

        monkeypatch.setattr(counters.baseline, "FILE", tmp_path / "baseline.json")
        counters.baseline.write(
            {name: counters.baseline.Accepted(value, "an event", 0.1) for name, value in accepted.items()}
        )
        monkeypatch.setattr(counters, "count", counts)

    return prepare


def test_what_is_as_it_was_passes(counters, count):
    count({"append 1 polls": 3.0}, {"append 1 polls": 3.05})
    assert counters.held(renew=False) == 0


def test_one_that_is_worse_fails_and_is_named(counters, count, capsys):
    count({"append 1 polls": 3.0, "relay 1 polls": 1.0}, {"append 1 polls": 4.0, "relay 1 polls": 1.0})
    assert counters.held(renew=False) == 1
    said = capsys.readouterr().out
    assert "append 1 polls" in said
    assert "relay 1 polls" not in said


def test_one_that_seems_worse_is_counted_again(counters, count, monkeypatch):
    count({"append 1 polls": 3.0}, {})
    counted = iter((4.0, 3.0))

    async def counts(_tools: Any) -> object:
        return {"append 1 polls": counters.Counted(next(counted), "an event")}

    monkeypatch.setattr(counters, "count", counts)
    assert counters.held(renew=False) == 0
    assert list(counted) == []


def test_what_cannot_be_counted_here_is_told_and_is_no_failure(counters, count, capsys):
    count({"append 1 allocations": 90.0, "append 1 polls": 3.0}, {"append 1 polls": 3.0}, allocations="no cc")
    assert counters.held(renew=False) == 0
    assert "NOT COUNTED: allocations: no cc." in capsys.readouterr().out


def test_where_all_has_to_be_counted_it_is_a_failure(counters, count, monkeypatch):
    monkeypatch.setenv("JUINIE_REQUIRE_COUNTERS", "1")
    count({"append 1 allocations": 90.0, "append 1 polls": 3.0}, {"append 1 polls": 3.0}, allocations="no cc")
    assert counters.held(renew=False) == 1


def test_another_one_that_is_gone_is_a_failure_still(counters, count):
    count({"append 1 allocations": 90.0, "append 1 polls": 3.0}, {}, allocations="no cc")
    assert counters.held(renew=False) == 1


def test_a_renewal_needs_all_of_them(counters, count):
    accepted = {"append 1 allocations": 90.0, "append 1 polls": 3.0}
    count(accepted, {"append 1 polls": 2.0}, allocations="no cc")
    assert counters.held(renew=True) == 1
    assert {name: one.value for name, one in counters.baseline.read().items()} == accepted
    count(accepted, {"append 1 allocations": 80.0, "append 1 polls": 2.0})
    assert counters.held(renew=True) == 0
    assert counters.baseline.read()["append 1 allocations"].value == 80.0
