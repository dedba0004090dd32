"""A torture is a good one only if something was tried, and nothing was found."""

import random
from typing import Any

import pytest

from juinie.torture.findings import Kind
from juinie.torture.scene import Load, Scene
from juinie.torture.schedule import Episode
from juinie.torture.summary import SORTS, Summary, added_up, doubts, not_there, summary, told
from juinie.torture.waited import NOT_LOOKED_AT

CLIENT: Any = type("NoClient", (), {"api": type("NoApi", (), {"repeats": {}})})


def good(**changed: Any) -> Summary:
    """Of a torture in which one of two faults was tried, all went well, but for what is changed."""
    scene = Scene(CLIENT, Load(), random.Random(1))
    scene.checker.events, scene.checker.deliveries = 10, 20
    episode = Episode(("hang",), ("network",), "2026-11-23T12:00:00", 1, 0.5, 0.1, 0.2, 0.3, 1, 1)
    return {**summary(scene, [episode], 1, "2026-11-23", 60, ["hang", "cut"]), **changed}


def test_good_one_leaves_no_doubt() -> None:
    assert doubts(good()) == []


@pytest.mark.parametrize(
    "changed",
    [
        {"violations": {Kind.LOST: 1}}, {"wrong_answers": {"POST events: 500": 1}}, {"unanswered": 1},
        {"broken_off": "stopped: exit code 1"}, {"events": 0}, {"deliveries": 0}, {"episodes": []},
    ],
    ids=lambda changed: next(iter(changed)),
)  # fmt: skip
def test_each_of_these_is_a_doubt(changed: Summary) -> None:
    assert len(doubts(good(**changed))) == 1


@pytest.mark.parametrize("what", ["recovery_seconds", "published_seconds", "live_seconds"])
def test_deployment_that_did_not_get_well_is_a_doubt(what: str) -> None:
    found = good()
    found["episodes"][0][what] = None

    assert len(doubts(found)) == 1


def test_kinds_that_did_not_occur_are_named() -> None:
    lines = dict(added_up([good()]))

    assert lines["faults"] == "1, of 1 kinds out of 2"
    assert lines["kinds that did not occur"] == "cut"


def of_everything(**changed: Any) -> Summary:
    return good(watchers=dict.fromkeys(SORTS, 1), deleted=1, polls=1, **changed)


def test_torture_of_everything_has_all_sorts_of_watchers_and_deletes_runs() -> None:
    assert not_there(of_everything()) == []
    assert len(not_there(good())) == len(SORTS) + 2
    assert not_there({**of_everything(), "deleted": 0}) == ["no run was deleted"]
    assert not_there({**of_everything(), "polls": 0}) == ["no long poll was answered"]
    assert not_there({**of_everything(), "left_out": ["left out: deletions"]}) == ["left out: deletions"]


@pytest.mark.parametrize("sort", SORTS)
def test_sort_of_watchers_that_was_not_there_is_visible(sort: str) -> None:
    found = of_everything()
    del found["watchers"][sort]

    assert not_there(found) == [f"no watcher of the sort {sort} was let in"]
    assert dict(added_up([found]))[f"watchers: {sort}"] == "0"
    assert doubts(found) == []


def test_what_was_not_looked_at_is_no_figure_and_no_fault() -> None:
    found, seen = good(), good()
    found["episodes"][0] |= {"published_seconds": NOT_LOOKED_AT, "live_seconds": NOT_LOOKED_AT}
    lines, both = dict(added_up([found])), dict(added_up([found, seen]))

    assert doubts(found) == []
    assert lines["all published: network"] == lines["live again: network"] == "not looked at, 1 times"
    assert both["all published: network"] == "median 0.2 s, longest 0.2 s, 1 times, not looked at, 1 times"


def test_what_was_not_looked_at_is_told_so_after_its_fault() -> None:
    unseen = Episode(("hang",), ("network",), "t", 1, 0.5, None, NOT_LOOKED_AT, NOT_LOOKED_AT, 1, 1)

    assert "served never, well again after 0.5 s, all published (not looked at), live again (not" in told(
        unseen
    )
