"""Whether the database is one that this code can work on."""

from juinie_shared.db.keys import refuse_dev_key
from juinie_shared.db.pool import Pool
from juinie_shared.db.schema import check_schema


async def check(pool: Pool, *, dev: bool) -> None:
    """See that the database answers, has the schema that this code needs, and outside dev no development key.

    Raises:
        SchemaBehind, DevKeyOutsideDev, DatabaseAway, DatabaseBusy
    """
    async with pool.connection() as connection:
        await check_schema(connection)
        if not dev:
            await refuse_dev_key(connection)
