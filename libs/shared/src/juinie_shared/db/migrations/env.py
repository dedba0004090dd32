"""Alembic's entry: runs inside the transaction and on the connection that `db/migrate.py` hands over."""

from alembic import context

from juinie_shared.db.tables import metadata

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=metadata,
    compare_server_default=True,
)
context.run_migrations()
