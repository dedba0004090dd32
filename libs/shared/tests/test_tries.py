"""Tries that may fail: counted each, told once a change."""

import pytest

from juinie_shared.domain.errors import DatabaseAway, KafkaAway, Transient
from juinie_shared.runtime.tries import Tries


def test_each_failure_is_counted_and_each_change_told_once() -> None:
    told: list[Transient | None] = []
    failures: list[int] = []
    tries = Tries(told.append, lambda: failures.append(1))
    away = DatabaseAway()
    for outcome in (None, away, KafkaAway(), None, None, KafkaAway()):
        with tries:
            if outcome:
                raise outcome
    assert [type(error) for error in told] == [DatabaseAway, type(None), KafkaAway]
    assert (len(failures), tries.failing) == (3, True)


def test_a_fault_of_ours_goes_on() -> None:
    told: list[Transient | None] = []
    with pytest.raises(ZeroDivisionError), Tries(told.append):
        raise ZeroDivisionError
    assert told == []
