"""When the sweeper has to look at a run, and the indexes by which runs are claimed, swept, and kept.

`due_at` has a default that is due at once: a run that the version before this one makes is looked at, and given its
right moment, by the sweeper. `run` may be large and in use: it is locked for a moment only, and what was done before
the migrator ended is done again without harm.
"""

from collections.abc import Sequence

from alembic import op
from sqlalchemy import text

from juinie_shared.db.indexes import create_index, outside_transaction

revision: str = "0002"
down_revision: str | None = "0001"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None


def upgrade() -> None:
    for statement in STATEMENTS:
        op.execute(statement)
    with outside_transaction():
        _make_open_runs_due()
    for name, definition in INDEXES.items():
        create_index(name, definition)


def downgrade() -> None:
    for index in INDEXES:
        op.drop_index(index)
    op.drop_column("run", "events_removed_at")
    op.drop_column("run", "due_at")


def _make_open_runs_due() -> None:
    after: str | None = "00000000-0000-0000-0000-000000000000"
    while after:
        after = op.get_bind().execute(text(MAKE_DUE), {"after": after}).scalar()


STATEMENTS = (
    # First without a default, so that finished runs, whose rows are not rewritten, have none.
    "ALTER TABLE run ADD COLUMN IF NOT EXISTS due_at timestamptz, ADD COLUMN IF NOT EXISTS events_removed_at timestamptz",
    "ALTER TABLE run ALTER COLUMN due_at SET DEFAULT clock_timestamp()",
)

# Few rows a transaction, so that no append waits long for one of them. By run_pkey.
MAKE_DUE = """
    WITH page AS (
        SELECT run_id, status IN ('pending', 'running') AND due_at IS NULL AND deleted_at IS NULL AS open
        FROM run WHERE run_id > CAST(:after AS uuid) ORDER BY run_id LIMIT 1000
    ), due AS (
        UPDATE run SET due_at = clock_timestamp() FROM page
        WHERE run.run_id = page.run_id AND page.open AND run.status IN ('pending', 'running')
    )
    SELECT CAST(run_id AS text) FROM page ORDER BY run_id DESC LIMIT 1
"""

INDEXES = {
    "run_due_idx": "ON run (due_at) WHERE due_at IS NOT NULL",
    "run_pending_idx": "ON run (tenant_id, agent, created_at, run_id) WHERE status = 'pending'",
    "run_open_idx": "ON run (tenant_id) WHERE status IN ('pending', 'running')",
    "run_finished_idx": """ON run (tenant_id, finished_at)
        WHERE finished_at IS NOT NULL AND events_removed_at IS NULL AND deleted_at IS NULL""",
    "run_kept_idx": "ON run (tenant_id, finished_at) WHERE finished_at IS NOT NULL AND deleted_at IS NULL",
}
