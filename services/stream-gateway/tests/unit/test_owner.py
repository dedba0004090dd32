"""Which of several processes serves a watcher of a run."""

import time

import pytest

from juinie_shared.domain.ids import RunId
from juinie_stream_gateway.edges.owner import COUNTED_SECONDS, SPREAD_FROM, Owner

RUN = "01a218a5-2a58-778b-bfad-4af620e95486"


def owner(
    index: int = 0,
    count: int = 4,
    place: tuple[int, int] | None = (6, 12),
    watchers: int = 0,
    *,
    room: bool = True,
) -> Owner:
    def place_of(run_id: RunId) -> tuple[int, int] | None:
        assert str(run_id) == RUN
        return place

    return Owner(index, count, place_of, lambda _: watchers, lambda: None, lambda: room)


@pytest.mark.parametrize("index", range(4))
def test_a_partition_belongs_to_one_process_wherever_its_watchers_come(index):
    assert owner(index).of(RUN, 0) == 6 % 4


@pytest.mark.parametrize("index", range(4))
def test_who_was_handed_over_is_kept_also_where_the_partitions_are_seen_otherwise(index):
    assert owner(index).of(RUN, 1) == index


@pytest.mark.parametrize("place", [None, (2, 3)], ids=["Kafka is away", "fewer partitions than processes"])
def test_watchers_stay_where_they_come(place):
    assert owner(place=place).of(RUN, 0) == 0


@pytest.mark.parametrize("text", ["", "x", RUN[:-1], f"{RUN}0", "%00"])
def test_what_is_no_run_is_answered_where_it_comes(text):
    assert owner().of(text, 0) == 0


@pytest.mark.parametrize("hops", [0, 1], ids=["who came here", "who was handed over"])
def test_a_run_with_many_watchers_is_spread_by_its_owner_over_all(hops):
    mine = owner(2, watchers=SPREAD_FROM)
    assert [mine.of(RUN, hops) for _ in range(8)] == [3, 0, 1, 2, 3, 0, 1, 2]


def test_those_who_come_in_a_storm_are_spread_before_any_of_them_watches():
    mine = owner(2, watchers=0)
    places = [mine.of(RUN, 0) for _ in range(SPREAD_FROM + 400)]
    assert [places.count(index) for index in range(4)] == [100, 100, SPREAD_FROM + 100, 100]


def test_those_who_came_and_went_long_ago_are_not_counted(monkeypatch):
    now = 0.0
    monkeypatch.setattr(time, "monotonic", lambda: now)
    mine = owner(2, watchers=0)
    for _ in range(3):
        assert {mine.of(RUN, 0) for _ in range(SPREAD_FROM)} == {2}
        now += COUNTED_SECONDS


def test_a_run_with_few_watchers_is_not_spread():
    mine = owner(2, watchers=SPREAD_FROM - 1)
    assert {mine.of(RUN, 1) for _ in range(8)} == {2}


@pytest.mark.parametrize("hops", [0, 1], ids=["who came here", "who was handed over"])
def test_what_an_owner_has_no_room_for_goes_to_the_others_by_turns(hops):
    mine = owner(2, room=False)
    assert [mine.of(RUN, hops) for _ in range(6)] == [3, 0, 1, 3, 0, 1]


@pytest.mark.parametrize(
    "place", [None, (2, 3), (5, 12)], ids=["Kafka is away", "few partitions", "another's"]
)
def test_room_is_the_owners_matter(place):
    assert owner(place=place, room=False).of(RUN, 0) == (1 if place == (5, 12) else 0)


@pytest.mark.parametrize("index", range(4))
def test_after_the_last_hop_there_is_no_other(index):
    assert owner(index, watchers=SPREAD_FROM).of(RUN, 2) == index
