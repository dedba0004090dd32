"""First schema: tenants, API keys, runs, run events, the outbox, idempotency keys, tombstones."""

from collections.abc import Sequence

from alembic import op

revision: str = "0001"
down_revision: str | None = None
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None

TABLES = ("run_tombstone", "append_key", "create_key", "outbox", "run_event", "run", "api_key", "tenant")


def upgrade() -> None:
    for statement in STATEMENTS:
        op.execute(statement)


def downgrade() -> None:
    for table in TABLES:
        op.drop_table(table)


STATEMENTS = (
    """
    CREATE TABLE tenant (
        tenant_id uuid CONSTRAINT tenant_pkey PRIMARY KEY,
        name text NOT NULL CONSTRAINT tenant_name_key UNIQUE,
        events_after interval,
        runs_after interval,
        created_at timestamptz NOT NULL DEFAULT clock_timestamp()
    )
    """,
    """
    CREATE TABLE api_key (
        key_id uuid CONSTRAINT api_key_pkey PRIMARY KEY,
        tenant_id uuid NOT NULL CONSTRAINT api_key_tenant_id_fkey REFERENCES tenant,
        hash bytea NOT NULL CONSTRAINT api_key_hash_key UNIQUE,
        scopes text[] NOT NULL,
        created_at timestamptz NOT NULL DEFAULT clock_timestamp(),
        expires_at timestamptz,
        revoked_at timestamptz
    )
    """,
    "CREATE INDEX api_key_tenant_id_idx ON api_key (tenant_id)",
    # Room in each page, so that an append's new version of the row stays in it (HOT) and touches no index.
    """
    CREATE TABLE run (
        run_id uuid CONSTRAINT run_pkey PRIMARY KEY,
        tenant_id uuid NOT NULL CONSTRAINT run_tenant_id_fkey REFERENCES tenant,
        shard smallint NOT NULL,
        agent text NOT NULL,
        thread_id text,
        status text NOT NULL DEFAULT 'pending' CONSTRAINT run_status_check
            CHECK (status IN ('pending','running','success','error','cancelled','timeout')),
        input text,
        output text,
        error text,
        metadata text NOT NULL DEFAULT '{}',
        last_seq bigint NOT NULL DEFAULT 0,
        retained_from_seq bigint NOT NULL DEFAULT 1,
        attempt integer NOT NULL DEFAULT 0,
        cancel_requested_at timestamptz,
        lease_token uuid,
        lease_worker_id text,
        lease_seconds integer,
        lease_expires_at timestamptz,
        idle_timeout_seconds integer NOT NULL,
        deadline_at timestamptz NOT NULL,
        fingerprint bytea NOT NULL,
        created_at timestamptz NOT NULL DEFAULT clock_timestamp(),
        started_at timestamptz,
        finished_at timestamptz,
        last_event_at timestamptz NOT NULL DEFAULT clock_timestamp(),
        deleted_at timestamptz
    ) WITH (fillfactor = 70)
    """,
    "CREATE INDEX run_tenant_created_idx ON run (tenant_id, created_at, run_id)",
    """
    CREATE INDEX run_tenant_thread_idx ON run (tenant_id, thread_id, created_at, run_id)
        WHERE thread_id IS NOT NULL
    """,
    "CREATE INDEX run_deleted_idx ON run (deleted_at) WHERE deleted_at IS NOT NULL",
    """
    CREATE TABLE run_event (
        run_id uuid NOT NULL,
        seq bigint NOT NULL,
        type text NOT NULL,
        data text NOT NULL,
        occurred_at timestamptz NOT NULL DEFAULT clock_timestamp(),
        CONSTRAINT run_event_pkey PRIMARY KEY (run_id, seq)
    )
    """,
    # A queue: rows live for milliseconds. CACHE 1 keeps id order = order of taking under the run's row lock.
    """
    CREATE TABLE outbox (
        id bigint GENERATED ALWAYS AS IDENTITY (CACHE 1) CONSTRAINT outbox_pkey PRIMARY KEY,
        shard smallint NOT NULL,
        run_id uuid NOT NULL,
        first_seq bigint NOT NULL,
        last_seq bigint NOT NULL,
        bytes integer NOT NULL,
        traceparent text,
        created_at timestamptz NOT NULL DEFAULT clock_timestamp()
    ) WITH (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 5000,
            autovacuum_vacuum_insert_scale_factor = 0, autovacuum_vacuum_cost_delay = 0)
    """,
    "CREATE INDEX outbox_shard_id_idx ON outbox (shard, id)",
    "CREATE INDEX outbox_run_id_idx ON outbox (run_id)",
    """
    CREATE TABLE create_key (
        tenant_id uuid NOT NULL,
        key text NOT NULL,
        fingerprint bytea NOT NULL,
        run_id uuid NOT NULL,
        CONSTRAINT create_key_pkey PRIMARY KEY (tenant_id, key)
    )
    """,
    "CREATE INDEX create_key_run_id_idx ON create_key (run_id)",
    """
    CREATE TABLE append_key (
        run_id uuid NOT NULL,
        key text NOT NULL,
        route text NOT NULL,
        fingerprint bytea NOT NULL,
        first_seq bigint NOT NULL,
        last_seq bigint NOT NULL,
        status text NOT NULL,
        cancel_requested boolean NOT NULL,
        CONSTRAINT append_key_pkey PRIMARY KEY (run_id, key)
    )
    """,
    """
    CREATE TABLE run_tombstone (
        run_id uuid CONSTRAINT run_tombstone_pkey PRIMARY KEY,
        deleted_at timestamptz NOT NULL DEFAULT clock_timestamp()
    )
    """,
)
