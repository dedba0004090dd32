"""What retention may have removed excuses a missing record; a partition that is quiet, or another run's, excuses nothing."""

from aiokafka import TopicPartition

from juinie.verify.kafka_retention import Retention, kept_since_ms, possible_partitions

DAY_MS = 86_400_000
NOW_MS = 1_795_435_200_000
WEEK = Retention(7 * DAY_MS)


def test_emptied_partition_keeps_what_is_younger_than_its_retention() -> None:
    assert kept_since_ms([None], WEEK, NOW_MS) == NOW_MS - 7 * DAY_MS
    assert kept_since_ms([None], Retention(None), NOW_MS) == 0
    assert kept_since_ms([], WEEK, NOW_MS) is None


def test_young_record_in_a_partition_that_had_been_emptied_does_not_excuse_all_before_it() -> None:
    assert kept_since_ms([NOW_MS - 5], WEEK, NOW_MS) == NOW_MS - 7 * DAY_MS
    assert kept_since_ms([NOW_MS - 8 * DAY_MS], WEEK, NOW_MS) == NOW_MS - 8 * DAY_MS


def test_where_the_size_is_bounded_what_is_left_tells() -> None:
    assert kept_since_ms([NOW_MS - 5], Retention(7 * DAY_MS, by_size=True), NOW_MS) == NOW_MS - 5


def test_of_several_partitions_the_latest_counts() -> None:
    left = [NOW_MS - 9 * DAY_MS, None, NOW_MS - 8 * DAY_MS]

    assert kept_since_ms(left, WEEK, NOW_MS) == NOW_MS - 7 * DAY_MS


def test_without_the_retention_an_emptied_partition_excuses_nothing() -> None:
    assert kept_since_ms([None], None, NOW_MS) is None
    assert kept_since_ms([None, NOW_MS - 5], None, NOW_MS) == NOW_MS - 5


def test_run_lies_where_its_key_goes_now_or_went_when_there_were_fewer() -> None:
    topic = [TopicPartition("runs", number) for number in (2, 0, 1, 3)]
    # murmur2 of it, without the sign, is 1495945784: partition 0 of 4, 2 of 3, 0 of 2, 0 of 1.
    found = possible_partitions(topic, b"0193a1f2-7c3e-7d4b-9a55-0c6a2f1e8b70")

    assert [partition.partition for partition in found] == [0, 2]
    assert possible_partitions(topic[1:2], b"any") == topic[1:2]
