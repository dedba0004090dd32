"""What is read after a commit, for the answer alone: where that fails, the request is not one that wrote nothing."""

from collections.abc import Generator
from contextlib import contextmanager

from juinie_shared.db.pool import driver_errors
from juinie_shared.domain.errors import DatabaseAway, DatabaseBusy, RunLocked


@contextmanager
def written() -> Generator[None]:
    """Around that read.

    Raises:
        DatabaseAway: in place of what says that nothing was written (`DatabaseBusy`, `RunLocked`). What was written stays charged.
    """
    try:
        with driver_errors():
            yield
    except (DatabaseBusy, RunLocked) as error:
        raise DatabaseAway from error
