"""Quotas of tenants and keys: set and shown from the command line. Services read them with the key (`db/keys.py`)."""

import json
from collections.abc import Collection
from uuid import UUID

from juinie_shared.db.pool import Connection
from juinie_shared.domain.quotas import Quotas

# By tenant_name_key and api_key_pkey. `||` sets what is given, `-` takes out what goes back to its default.
_SET_OF_TENANT = """
    UPDATE tenant SET quotas = (quotas || $2::text::jsonb) - $3::text[] WHERE name = $1 RETURNING quotas
"""
_SET_OF_KEY = """
    UPDATE api_key SET quotas = (quotas || $2::text::jsonb) - $3::text[] WHERE key_id = $1 RETURNING quotas
"""


async def set_tenant_quotas(
    connection: Connection, name: str, given: Quotas, defaulted: Collection[str] = ()
) -> Quotas | None:
    """Change a tenant's quotas, felt within 30 s. Gives all of them; None when there is no such tenant."""
    return _read(await connection.fetchval(_SET_OF_TENANT, name, json.dumps(given), list(defaulted)))


async def set_key_quotas(
    connection: Connection, key_id: UUID, given: Quotas, defaulted: Collection[str] = ()
) -> Quotas | None:
    """As `set_tenant_quotas`, of one key."""
    return _read(await connection.fetchval(_SET_OF_KEY, key_id, json.dumps(given), list(defaulted)))


def _read(quotas: str | None) -> Quotas | None:
    return None if quotas is None else json.loads(quotas)
