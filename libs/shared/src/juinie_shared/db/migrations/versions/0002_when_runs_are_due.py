"""When the sweeper has to look at a run, and the indexes by which runs are claimed, swept, and kept.

`due_at` has a default that is due at once: a run that the version before this one makes is looked at, and given its
right moment, by the sweeper.
"""

from collections.abc import Sequence

from alembic import op

revision: str = "0002"
down_revision: str | None = "0001"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None

INDEXES = ("run_due_idx", "run_pending_idx", "run_open_idx", "run_finished_idx", "run_kept_idx")


def upgrade() -> None:
    for statement in STATEMENTS:
        op.execute(statement)


def downgrade() -> None:
    for index in INDEXES:
        op.drop_index(index)
    op.drop_column("run", "events_removed_at")
    op.drop_column("run", "due_at")


STATEMENTS = (
    # First without a default, so that finished runs, whose rows are not rewritten, have none.
    "ALTER TABLE run ADD COLUMN due_at timestamptz, ADD COLUMN events_removed_at timestamptz",
    "ALTER TABLE run ALTER COLUMN due_at SET DEFAULT clock_timestamp()",
    "UPDATE run SET due_at = clock_timestamp() WHERE status IN ('pending', 'running') AND deleted_at IS NULL",
    "CREATE INDEX run_due_idx ON run (due_at) WHERE due_at IS NOT NULL",
    "CREATE INDEX run_pending_idx ON run (tenant_id, agent, created_at, run_id) WHERE status = 'pending'",
    "CREATE INDEX run_open_idx ON run (tenant_id) WHERE status IN ('pending', 'running')",
    """
    CREATE INDEX run_finished_idx ON run (tenant_id, finished_at)
        WHERE finished_at IS NOT NULL AND events_removed_at IS NULL AND deleted_at IS NULL
    """,
    """
    CREATE INDEX run_kept_idx ON run (tenant_id, finished_at)
        WHERE finished_at IS NOT NULL AND deleted_at IS NULL
    """,
)
