"""Alembic's entry: runs on the connection that `db/migrate.py` hands over, in transactions as it says."""

from alembic import context

from juinie_shared.db.tables import metadata

context.configure(
    connection=context.config.attributes["connection"],
    transaction_per_migration=context.config.attributes["each_alone"],
    target_metadata=metadata,
    compare_server_default=True,
)
with context.begin_transaction():
    context.run_migrations()
