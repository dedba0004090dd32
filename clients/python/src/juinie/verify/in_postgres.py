"""The run as its rows tell it. Needs the extra `juinie[postgres]`, and a user that may read; it changes nothing."""

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from typing import Any

import asyncpg

from juinie.events import RunEvent
from juinie.verify.over_http import Log
from juinie.verify.report import Report

_RUN = "SELECT status, last_seq FROM run WHERE run_id = $1"

_EVENTS = """
    SELECT seq, type, data, occurred_at FROM run_event
    WHERE run_id = $1 AND ($2::bigint IS NULL OR seq <= $2) ORDER BY seq
"""

_UNSENT = "SELECT coalesce(sum(last_seq - first_seq + 1), 0)::bigint FROM outbox WHERE run_id = $1"


async def check_postgres(database_url: str, log: Log, report: Report) -> None:
    """The run's row says what the API says, and its event rows hold what the pages hold."""
    connection = await _connect(database_url)
    try:
        async with connection.transaction(isolation="repeatable_read", readonly=True):
            run = await connection.fetchrow(_RUN, log.run["run_id"])
            rows = await connection.fetch(_EVENTS, log.run["run_id"], log.until_seq)
            unsent = await connection.fetchval(_UNSENT, log.run["run_id"])
    finally:
        await connection.close()
    report.add("postgres", "the run's row", _faults_of_row(run, log))
    report.add("postgres", f"{len(log.events)} event rows", faults_of_rows(log.events, rows))
    report.add("postgres", f"{unsent} events still to be published", ())


async def _connect(database_url: str) -> Any:
    module: Any = asyncpg  # which types it in part
    return await module.connect(database_url, timeout=10)


def faults_of_rows(events: Sequence[RunEvent], rows: Sequence[Any]) -> Iterator[str]:
    """Rows with `seq`, `type`, `data` and `occurred_at` against the events of the pages."""
    for event, row in zip(events, rows, strict=False):
        shown = (event.seq, event.type, event.raw_data.decode(), event.time)
        if shown != (row["seq"], row["type"], row["data"], _time(row["occurred_at"])):
            yield f"the row of seq {row['seq']} is not the event of seq {event.seq}"
    if len(rows) != len(events):
        yield f"{len(rows)} rows, not {len(events)}"


def _faults_of_row(row: Any, log: Log) -> Iterator[str]:
    if row is None:
        yield "there is none: is it another database?"
    elif log.finished and (row["status"], row["last_seq"]) != (log.run["status"], log.run["last_seq"]):
        yield f"it says {row['status']} and {row['last_seq']}, the API {log.run['status']} and {log.run['last_seq']}"
    elif row["last_seq"] < log.run["last_seq"]:
        yield f"it says {row['last_seq']}, the API {log.run['last_seq']}"


def _time(moment: datetime) -> str:
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
