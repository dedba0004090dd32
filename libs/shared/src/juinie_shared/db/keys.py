"""API keys: made, listed, revoked, found. A key's text exists once, when it is made; the table has its SHA-256."""

import hashlib
import json
import secrets
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from uuid import UUID

from juinie_shared.contracts.names import DEV_API_KEY, DEV_TENANT
from juinie_shared.db.pool import Connection, Row
from juinie_shared.domain.errors import DevKeyOutsideDev
from juinie_shared.domain.ids import KeyId, TenantId, new_uuid7
from juinie_shared.domain.quotas import Quotas
from juinie_shared.domain.runs import Scope

PREFIX = "jn_"

_FIND_TENANT_OR_MAKE = """
    WITH made AS (
        INSERT INTO tenant (tenant_id, name) VALUES ($1, $2) ON CONFLICT (name) DO NOTHING RETURNING tenant_id
    )
    SELECT tenant_id FROM made UNION ALL SELECT tenant_id FROM tenant WHERE name = $2 LIMIT 1
"""

_INSERT = """
    INSERT INTO api_key (key_id, tenant_id, hash, scopes, expires_at, quotas)
    VALUES ($1, $2, $3, $4, clock_timestamp() + make_interval(days => $5), $6::text::jsonb)
    ON CONFLICT (hash) DO NOTHING
"""

_REVOKE = """
    UPDATE api_key SET revoked_at = coalesce(revoked_at, clock_timestamp()) WHERE key_id = $1 RETURNING key_id
"""

_LIST = """
    SELECT key_id, tenant.name AS tenant, scopes, api_key.created_at, expires_at, revoked_at
    FROM api_key JOIN tenant USING (tenant_id) ORDER BY api_key.created_at, key_id
"""

_FIND_VALID = """
    SELECT key_id, hash, tenant_id, scopes, api_key.quotas AS key_quotas, tenant.quotas AS tenant_quotas
    FROM api_key JOIN tenant USING (tenant_id)
    WHERE hash = ANY($1::bytea[]) AND revoked_at IS NULL AND (expires_at IS NULL OR expires_at > clock_timestamp())
"""
"""By api_key_hash_key, each; a table of a few pages is read whole."""

_FIND_VALID_BY_ID = _FIND_VALID.replace("hash = ANY($1::bytea[])", "key_id = ANY($1::uuid[])")


@dataclass(frozen=True, slots=True)
class Principal:
    """Who calls: the tenant, the key that shows it, what the key may do, and how much of it.

    `unmetered`: the development key, which no rate limit holds.
    """

    tenant_id: TenantId
    key_id: KeyId
    scopes: frozenset[Scope]
    tenant_quotas: Quotas = field(default_factory=dict[str, int | None])
    key_quotas: Quotas = field(default_factory=dict[str, int | None])
    unmetered: bool = False


@dataclass(frozen=True, slots=True)
class ListedKey:
    """A key as `keys list` shows it. Its text is nowhere."""

    key_id: UUID
    tenant: str
    scopes: list[str]
    created_at: datetime
    expires_at: datetime | None
    revoked_at: datetime | None


def hash_key(text: str) -> bytes:
    """SHA-256. Enough without salt or stretching: our keys hold 256 random bits."""
    return hashlib.sha256(text.encode()).digest()


_DEV_HASH = hash_key(DEV_API_KEY)


async def create_key(
    connection: Connection,
    tenant: str,
    scopes: Iterable[Scope],
    expires_in_days: int | None = None,
    quotas: Quotas | None = None,
) -> str:
    """Make a key (and its tenant, when new) and give its text: the only time that it is seen."""
    text = PREFIX + secrets.token_urlsafe(32)
    await _insert(connection, tenant, text, scopes, expires_in_days, quotas or {})
    return text


async def ensure_dev_key(connection: Connection) -> None:
    """The development key, for `JUINIE_ENV=dev` alone. Safe to repeat."""
    await _insert(connection, DEV_TENANT, DEV_API_KEY, list(Scope), None, {})


async def refuse_dev_key(connection: Connection) -> None:
    """Outside dev nobody may come in with the key that the README prints.

    Raises:
        DevKeyOutsideDev: it is in this database, and valid.
    """
    if await find_key(connection, DEV_API_KEY):
        raise DevKeyOutsideDev


async def find_key(connection: Connection, text: str) -> Principal | None:
    """Who shows this key; None for an unknown, revoked or expired one."""
    hashed = hash_key(text)
    return (await find_keys(connection, [hashed])).get(hashed)


async def find_keys(connection: Connection, hashes: Sequence[bytes]) -> dict[bytes, Principal]:
    """Who shows the keys of these hashes. Unknown, revoked and expired ones are left out."""
    return {row["hash"]: _principal(row) for row in await connection.fetch(_FIND_VALID, hashes)}


async def find_keys_by_id(connection: Connection, key_ids: Sequence[KeyId]) -> dict[KeyId, Principal]:
    """Whose these keys are. Unknown, revoked and expired ones are left out."""
    rows = await connection.fetch(_FIND_VALID_BY_ID, key_ids)
    return {KeyId(row["key_id"]): _principal(row) for row in rows}


async def list_keys(connection: Connection) -> list[ListedKey]:
    """All keys, the oldest first, the revoked and expired ones too."""
    return [
        ListedKey(
            row["key_id"],
            row["tenant"],
            row["scopes"],
            row["created_at"],
            row["expires_at"],
            row["revoked_at"],
        )
        for row in await connection.fetch(_LIST)
    ]


async def revoke_key(connection: Connection, key_id: UUID) -> bool:
    """Revoke a key; False when there is none of this id. Felt everywhere within 60 s."""
    return await connection.fetchval(_REVOKE, key_id) is not None


def _principal(row: Row) -> Principal:
    return Principal(
        TenantId(row["tenant_id"]),
        KeyId(row["key_id"]),
        frozenset(map(Scope, row["scopes"])),
        json.loads(row["tenant_quotas"]),
        json.loads(row["key_quotas"]),
        row["hash"] == _DEV_HASH,
    )


async def _insert(
    connection: Connection,
    tenant: str,
    text: str,
    scopes: Iterable[Scope],
    expires_in_days: int | None,
    quotas: Quotas,
) -> None:
    tenant_id = None
    while tenant_id is None:  # another transaction may have made the tenant between our insert and our look
        tenant_id = await connection.fetchval(_FIND_TENANT_OR_MAKE, new_uuid7(), tenant)
    await connection.execute(
        _INSERT, new_uuid7(), tenant_id, hash_key(text), [str(scope) for scope in scopes], expires_in_days,
        json.dumps(quotas),
    )  # fmt: skip
