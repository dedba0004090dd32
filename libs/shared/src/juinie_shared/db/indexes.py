"""Indexes on tables that are large and in use: made while everybody goes on writing.

For steps of a migration. What such a step did before is committed first, so each must bear to be done again: a
migrator that is ended in between leaves the revision as it was, and perhaps an index that is not valid.
"""

from collections.abc import Generator
from contextlib import contextmanager

from alembic import op

LOCK_TIMEOUT = "SET lock_timeout = '500ms'"
"""Less than the 1 s that a statement of the api waits, and the 2 s of the others: who queues up behind a migrator's lock must not fail by it."""

_PATIENCE = "SET lock_timeout = '60s'"
"""Nobody queues behind an index that is made concurrently; it waits for every transaction older than itself."""


@contextmanager
def outside_transaction() -> Generator[None]:
    """Commit what the step did so far; each statement in here is a transaction of its own."""
    with op.get_context().autocommit_block():
        yield


def create_index(name: str, definition: str) -> None:
    """Make an index without blocking writers. What an earlier migrator left of it goes first."""
    with outside_transaction():
        op.execute(_PATIENCE)
        op.execute(f"DROP INDEX CONCURRENTLY IF EXISTS {name}")
        op.execute(f"CREATE INDEX CONCURRENTLY {name} {definition}")
        op.execute(LOCK_TIMEOUT)
