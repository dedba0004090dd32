"""Tenants, and how long each keeps its finished runs."""

from dataclasses import dataclass
from datetime import datetime, timedelta

from juinie_shared.db.pool import Connection, Row
from juinie_shared.domain.durations import format_duration
from juinie_shared.domain.errors import BadRetention, TenantNotFound

_TENANT = "SELECT name, events_after, runs_after, created_at FROM tenant"

_LIST = _TENANT + " ORDER BY name"

# Takes the tenant's row lock: two who set one thing each see each other. NO KEY: who creates runs meanwhile does not wait,
# though the foreign key of a new run shares the lock of its tenant's key.
_LOCK = _TENANT + " WHERE name = $1 FOR NO KEY UPDATE"

_SET = "UPDATE tenant SET events_after = $2, runs_after = $3 WHERE name = $1"


@dataclass(frozen=True, slots=True)
class KeptFor:
    """How long after a run's end its events go, and the run itself. None: never."""

    events_after: timedelta | None
    runs_after: timedelta | None


@dataclass(frozen=True, slots=True)
class ListedTenant:
    name: str
    kept: KeptFor
    created_at: datetime


@dataclass(frozen=True, slots=True)
class Wish:
    """What one of a tenant's two times is to be. None: never."""

    after: timedelta | None


async def list_tenants(connection: Connection) -> list[ListedTenant]:
    """All tenants, by name."""
    return [ListedTenant(row["name"], _kept(row), row["created_at"]) for row in await connection.fetch(_LIST)]


async def set_retention(
    connection: Connection, name: str, events: Wish | None = None, runs: Wish | None = None
) -> KeptFor:
    """Set one of the times, or both; what has no wish stays as it is. Gives what holds now.

    Raises:
        TenantNotFound: nobody has this name.
        BadRetention: runs would go before their events.
    """
    async with connection.transaction():
        row = await connection.fetchrow(_LOCK, name)
        if row is None:
            raise TenantNotFound(name)
        before = _kept(row)
        kept = KeptFor(
            events.after if events else before.events_after, runs.after if runs else before.runs_after
        )
        _check(kept)
        await connection.execute(_SET, name, kept.events_after, kept.runs_after)
    return kept


def _check(kept: KeptFor) -> None:
    if kept.events_after is not None and kept.runs_after is not None and kept.runs_after < kept.events_after:
        raise BadRetention(format_duration(kept.events_after), format_duration(kept.runs_after))


def _kept(row: Row) -> KeptFor:
    return KeptFor(row["events_after"], row["runs_after"])
