"""What a load needs, by formulas: the page says what they say, and they behave as what they speak of."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any
from uuid import UUID

import pytest

PAGE = Path(__file__).parents[2] / "docs/explanation/scaling.md"


@pytest.fixture
def capacity(bench_module: Callable[[str], ModuleType]) -> Any:
    return bench_module("capacity")


def test_the_page_has_the_table_that_is_printed(capacity: Any) -> None:
    assert capacity.page() in PAGE.read_text()


def test_ten_times_the_runs_need_ten_times_of_what_they_bring_and_less_of_what_rounds_share(
    capacity: Any,
) -> None:
    one = capacity.need(capacity.Load(10_000, 5, 10, 2, routed=True))
    ten = capacity.need(capacity.Load(100_000, 5, 10, 2, routed=True))
    for what in ("wal_bytes", "kafka_in_bytes", "kafka_out_bytes", "socket_bytes", "stored_bytes_a_day"):
        assert getattr(ten, what) == pytest.approx(10 * getattr(one, what))
    assert ten.cores["api"] == pytest.approx(10 * one.cores["api"])
    assert 5 * one.cores["publisher"] < ten.cores["publisher"] < 10 * one.cores["publisher"]


def test_gateways_that_all_read_all_need_more_the_more_there_are_and_at_some_rate_none_is_enough(
    capacity: Any,
) -> None:
    routed = capacity.Load(10_000, 5, 10, 2, routed=True)
    all_read_all = replace(routed, routed=False)
    assert capacity.need(all_read_all).cores["gateway"] > capacity.need(routed).cores["gateway"]
    assert capacity.need(all_read_all).processes["gateway"] > capacity.need(routed).processes["gateway"]
    with pytest.raises(capacity.CannotBe):
        capacity.need(replace(all_read_all, active_runs=100_000))


def test_what_so_many_gateways_read_is_worked_out_for_those_that_are_there(capacity: Any) -> None:
    load = capacity.Load(200, 5, 10, 1)
    one, two = capacity.need(load, 1), capacity.need(load, 2)
    routed = capacity.need(replace(load, routed=True), 2)
    assert capacity.need(load) == one
    assert two.kafka_out_bytes == 2 * one.kafka_out_bytes
    assert routed.kafka_out_bytes == one.kafka_out_bytes
    passed_over = load.events * capacity.Costs().record_passed_over * capacity.MICRO
    assert two.cores["gateway"] - routed.cores["gateway"] == pytest.approx(passed_over)


def test_each_publisher_makes_rounds_of_its_own(capacity: Any) -> None:
    """100,000 appends a second are 2.9 cores for their rows; with seven publishers, each makes 325.6 rounds a second."""
    need = capacity.need(capacity.Load(100_000, 10, 10, 1, routed=True))
    assert need.processes["publisher"] == 7
    assert need.cores["publisher"] == pytest.approx(2.9 + 7 * (325.6 * 500e-6 + 0.014), rel=1e-3)


@pytest.mark.parametrize("pace", [0.5, 1.0, 3.0])
def test_what_was_much_more_or_much_less_than_foretold_fails_the_check_whatever_cores_are_here(
    bench_module: Callable[[str], ModuleType], pace: float
) -> None:
    check = bench_module("capacity_check")
    fine = {
        (case, what): ratio
        for case in ("one", "two")
        for what, ratio in {"cores of api": pace, "cores of gateway": pace, "memory of api": 1.0}.items()
    }
    assert check.pace_of(fine) == pace
    assert check.wrong(fine, pace) == []
    for ratio, wrong in {0.39: True, 0.41: False, 1.49: False, 1.51: True}.items():
        told = ["one: cores of gateway", "two: memory of api"] if wrong else []
        odd = {("one", "cores of gateway"): ratio * pace, ("two", "memory of api"): ratio}
        assert check.wrong(fine | odd, pace) == told
    read = ("two", "bytes from Kafka a second")
    assert check.wrong(fine | {read: 1.9}, pace) == []
    assert check.wrong(fine | {read: 2.1}, pace) == [": ".join(read)]


@pytest.mark.parametrize("routed", [False, True])
def test_two_gateways_of_a_check_share_out_all_watchers_and_where_they_are_routed_no_partition(
    bench_module: Callable[[str], ModuleType], routed: bool
) -> None:
    check: Any = bench_module("capacity_check")
    name = f"ten events an append, two gateways{', routed' * routed}"
    runs = [UUID(int=number) for number in range(200)]
    shares = check.shared_out(runs, check.CASES[name], 3)
    assert sorted(run for share in shares for run in share) == runs
    one, other = ({check.partition_of(run, 3) for run in share} for share in shares)
    assert not one & other if routed else one == other == {0, 1, 2}


def test_no_process_has_more_to_do_or_more_streams_than_is_planned(capacity: Any) -> None:
    for load in capacity.LOADS.values():
        needs = capacity.need(load)
        for part, processes in needs.processes.items():
            assert needs.cores[part] / processes <= capacity.PLANNED + 1e-9
        assert load.streams / needs.processes["gateway"] <= capacity.STREAMS_A_PROCESS


def test_larger_appends_save_the_api_and_postgres_and_nothing_on_the_wire(capacity: Any) -> None:
    small, large = (capacity.need(capacity.Load(1_000, 5, events, 2)) for events in (1, 10))
    assert large.cores["api"] < small.cores["api"] / 5
    assert large.cores["postgres"] < small.cores["postgres"] / 2
    assert large.kafka_in_bytes == small.kafka_in_bytes
    assert large.socket_bytes == small.socket_bytes
