from dataclasses import replace
from datetime import UTC, datetime
from uuid import UUID

import pytest

from juinie_api.core.run import Run
from juinie_api.edges.cursors import cursor_after, parse_cursor
from juinie_api.edges.problems import Refused
from juinie_shared.domain.ids import RunId, Seq
from juinie_shared.domain.runs import RunStatus

MOMENT = datetime(2026, 11, 23, 12, 0, 0, 123457, UTC)
RUN = Run(
    run_id=RunId(UUID("01930b7e-4c00-7a11-8b22-c3d4e5f60718")), agent="a", thread_id=None, status=RunStatus.PENDING, input=None, output=None, error=None,
    metadata="{}", last_seq=Seq(1), attempt=0, cancel_requested=False, created_at=MOMENT, started_at=None,
    finished_at=None, deadline_at=MOMENT,
)  # fmt: skip


def test_a_cursor_names_the_run_to_the_microsecond():
    assert parse_cursor(cursor_after(RUN)) == (MOMENT, RUN.run_id)
    assert (
        parse_cursor(cursor_after(replace(RUN, created_at=MOMENT.replace(microsecond=0))))[0].microsecond == 0
    )


@pytest.mark.parametrize(
    "text", ["", "x", "*", "AAAA", "MS4y", "é", "a" * 5000, cursor_after(RUN)[:-4], "MTAuMTA="]
)
def test_anything_else_is_refused(text: str):
    with pytest.raises(Refused) as caught:
        parse_cursor(text)
    assert (caught.value.status, caught.value.code) == (400, "bad_cursor")
