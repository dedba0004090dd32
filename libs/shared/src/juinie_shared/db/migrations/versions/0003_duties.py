"""Duties: what only one publisher at a time has to do, and which publishers there are."""

from collections.abc import Sequence

from alembic import op

revision: str = "0003"
down_revision: str | None = "0002"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None


def upgrade() -> None:
    for statement in STATEMENTS:
        op.execute(statement)


def downgrade() -> None:
    op.drop_table("duty")
    op.drop_table("publisher")


# Few rows that change every other second: room in the page keeps their updates HOT.
STATEMENTS = (
    """
    CREATE TABLE publisher (
        publisher_id uuid CONSTRAINT publisher_pkey PRIMARY KEY,
        name text NOT NULL,
        seen_at timestamptz NOT NULL DEFAULT clock_timestamp()
    ) WITH (fillfactor = 50)
    """,
    """
    CREATE TABLE duty (
        name text CONSTRAINT duty_pkey PRIMARY KEY,
        shard smallint CONSTRAINT duty_shard_key UNIQUE,
        publisher_id uuid,
        expires_at timestamptz
    ) WITH (fillfactor = 50)
    """,
    "INSERT INTO duty (name, shard) SELECT 'shard-' || shard, shard FROM generate_series(0, 63) AS shard",
    "INSERT INTO duty (name) VALUES ('sweep'), ('retention')",
)
