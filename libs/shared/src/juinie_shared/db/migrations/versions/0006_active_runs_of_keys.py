"""Which key made a run, where that key has a limit of unfinished runs, and the index by which they are counted.

The version before this one makes runs that count for no key. A run that no key is counted for has no entry in the index,
and no byte more in its row.
"""

from collections.abc import Sequence

from alembic import op

from juinie_shared.db.indexes import create_index

revision: str = "0006"
down_revision: str | None = "0005"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None


def upgrade() -> None:
    op.execute("ALTER TABLE run ADD COLUMN IF NOT EXISTS counted_key_id uuid")
    create_index(
        "run_open_of_key_idx",
        "ON run (counted_key_id) WHERE counted_key_id IS NOT NULL AND status IN ('pending', 'running')",
    )


def downgrade() -> None:
    op.drop_index("run_open_of_key_idx")
    op.drop_column("run", "counted_key_id")
