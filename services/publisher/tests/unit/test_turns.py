"""Which windows are of the oldest rows, and which have some of each shard."""

from juinie_publisher.core.turns import AFTER_TROUBLE, OLDEST_IN_A_ROW, Turns


def by_shard(turns, count, troubled=False):
    return [turns.by_shard(troubled) for _ in range(count)]


def test_windows_that_are_not_full_are_of_the_oldest():
    turns = Turns()
    for _ in range(10):
        assert by_shard(turns, 1) == [False]
        turns.all_given()


def test_shards_have_their_turn_when_windows_are_full():
    cycle = [False] * OLDEST_IN_A_ROW + [True]
    assert by_shard(Turns(), 3 * len(cycle)) == cycle * 3


def test_shards_have_every_turn_while_something_is_held_back_and_a_while_longer():
    turns = Turns()
    assert by_shard(turns, 20, troubled=True) == [True] * 20
    assert by_shard(turns, AFTER_TROUBLE) == [True] * (AFTER_TROUBLE - 1) + [False]


def test_once_nothing_waits_trouble_is_forgotten():
    turns = Turns()
    by_shard(turns, 1, troubled=True)
    turns.all_given()
    assert by_shard(turns, 1, troubled=True) == [True]
    turns.all_given()
    assert by_shard(turns, 1) == [False]
