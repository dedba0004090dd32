"""What tenants and keys may use up, and the counts that processes share.

The version before this one makes tenants and keys without quotas, and counts nothing.
"""

from collections.abc import Sequence

from alembic import op

revision: str = "0004"
down_revision: str | None = "0003"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None


def upgrade() -> None:
    for statement in STATEMENTS:
        op.execute(statement)


def downgrade() -> None:
    # A create locks its run before its tenant. A downgrade that goes on to change runs has to do so, too.
    op.execute("LOCK TABLE run IN ACCESS EXCLUSIVE MODE")
    op.drop_table("shared_count")
    op.drop_column("api_key", "quotas")
    op.drop_column("tenant", "quotas")


STATEMENTS = (
    "ALTER TABLE tenant ADD COLUMN quotas jsonb NOT NULL DEFAULT '{}'",
    "ALTER TABLE api_key ADD COLUMN quotas jsonb NOT NULL DEFAULT '{}'",
    # Every row changes every second: room on each page keeps the updates HOT.
    """
    CREATE UNLOGGED TABLE shared_count (
        counter text NOT NULL,
        process_id uuid NOT NULL,
        amount bigint NOT NULL,
        seen_at timestamptz NOT NULL DEFAULT clock_timestamp(),
        CONSTRAINT shared_count_pkey PRIMARY KEY (counter, process_id)
    ) WITH (fillfactor = 50)
    """,
)
