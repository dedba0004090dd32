"""Dead letters, and whether the relay is paused."""

from collections.abc import Sequence

from alembic import op

revision: str = "0005"
down_revision: str | None = "0004"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None


def upgrade() -> None:
    for statement in STATEMENTS:
        op.execute(statement)


def downgrade() -> None:
    op.drop_table("relay_state")
    op.drop_table("dead_letter")


STATEMENTS = (
    """
    CREATE TABLE dead_letter (
        id bigint GENERATED ALWAYS AS IDENTITY CONSTRAINT dead_letter_pkey PRIMARY KEY,
        tenant_id uuid NOT NULL,
        run_id uuid NOT NULL,
        first_seq bigint NOT NULL,
        last_seq bigint NOT NULL,
        shard smallint NOT NULL,
        reason text NOT NULL,
        traceparent text,
        created_at timestamptz NOT NULL DEFAULT clock_timestamp(),
        recorded_at timestamptz
    )
    """,
    "CREATE INDEX dead_letter_tenant_id_idx ON dead_letter (tenant_id, id)",
    "CREATE INDEX dead_letter_run_id_idx ON dead_letter (run_id)",
    "CREATE INDEX dead_letter_unrecorded_idx ON dead_letter (shard, id) WHERE recorded_at IS NULL",
    """
    CREATE TABLE relay_state (
        one boolean CONSTRAINT relay_state_pkey PRIMARY KEY DEFAULT true CONSTRAINT relay_state_one_check CHECK (one),
        paused_at timestamptz
    )
    """,
    "INSERT INTO relay_state DEFAULT VALUES",
)
