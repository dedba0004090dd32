"""Outbox rows and the records of their ranges: which rows are whole, which were touched, which lie where."""

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence

from juinie_publisher.store.outbox import PendingRow
from juinie_shared.domain.ids import RunId


def group_by_partition(
    rows: Iterable[PendingRow], partition_of: Callable[[bytes], int]
) -> Mapping[int, Sequence[PendingRow]]:
    """The rows of each partition, in the order they came."""
    groups: defaultdict[int, list[PendingRow]] = defaultdict(list)
    group_of_run: dict[RunId, list[PendingRow]] = {}
    for row in rows:
        group = group_of_run.get(row.run_id)
        if group is None:
            group = group_of_run[row.run_id] = groups[partition_of(str(row.run_id).encode())]
        group.append(row)
    return groups


def rows_within(rows: Sequence[PendingRow], acked: int) -> Sequence[PendingRow]:
    """The first rows, as many as are whole within the first `acked` of their records."""
    records = 0
    for place, row in enumerate(rows):
        records += len(row.records)
        if records > acked:
            return rows[:place]
    return rows


def rows_begun(rows: Sequence[PendingRow], sent: int) -> Sequence[PendingRow]:
    """The first rows, as many as have a record among the first `sent` of their records."""
    records = 0
    for place, row in enumerate(rows):
        if records >= sent:
            return rows[:place]
        records += len(row.records)
    return rows


def record_count(rows: Iterable[PendingRow]) -> int:
    return sum([len(row.records) for row in rows])
