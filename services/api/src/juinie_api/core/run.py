"""A run as its tenant sees it."""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from datetime import datetime
from typing import Any

from juinie_shared.domain.ids import RunId, Seq
from juinie_shared.domain.runs import RunStatus


@dataclass(frozen=True, slots=True)
class Run:
    """`input`, `output`, `error` and `metadata` are JSON text as it came in; None is null.

    `whole` is False where a list left out input and output.
    """

    run_id: RunId
    agent: str
    thread_id: str | None
    status: RunStatus
    input: str | None
    output: str | None
    error: str | None
    metadata: str
    last_seq: Seq
    attempt: int
    cancel_requested: bool
    created_at: datetime
    started_at: datetime | None
    finished_at: datetime | None
    deadline_at: datetime
    whole: bool = True


_COLUMNS = tuple(field.name for field in fields(Run) if field.name not in {"status", "whole"})


def run_of(row: Mapping[str, Any], *, whole: bool = True) -> Run:
    """The run in a row with `store.runs.RUN_COLUMNS`; other columns are left alone."""
    values: dict[str, Any] = {name: row[name] for name in _COLUMNS}
    return Run(**values, status=RunStatus(row["status"]), whole=whole)


def listed_run_of(row: Mapping[str, Any]) -> Run:
    """The run in a row of a list: without input and output."""
    return run_of({**row, "input": None, "output": None}, whole=False)
