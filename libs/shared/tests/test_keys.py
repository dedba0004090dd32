"""API keys: shown once, stored as a hash, refused alike whether unknown, revoked or expired."""

import asyncio
from typing import Any

import pytest

from juinie_shared.contracts.names import DEV_API_KEY
from juinie_shared.db.keys import (
    create_key,
    ensure_dev_key,
    find_key,
    hash_key,
    list_keys,
    refuse_dev_key,
    revoke_key,
)
from juinie_shared.db.pool import Pool
from juinie_shared.domain.errors import DatabaseBusy, DevKeyOutsideDev, NotAuthenticated
from juinie_shared.domain.runs import Scope
from juinie_shared.runtime import keys
from juinie_shared.runtime.keys import LONGEST_KEY, KeyRing
from juinie_testkit.seed import Seed
from juinie_testkit.waits import eventually

EXPIRE = "UPDATE api_key SET expires_at = clock_timestamp() WHERE key_id = $1"


async def test_key_says_whose_it_is_and_what_it_may_do(pool: Pool):
    async with pool.connection() as connection:
        text = await create_key(connection, "acme", [Scope.READ], expires_in_days=1)
        principal = await find_key(connection, text)
        (listed,) = await list_keys(connection)
    assert principal
    assert principal.scopes == {Scope.READ}
    assert (listed.key_id, listed.tenant, listed.scopes) == (principal.key_id, "acme", ["read"])
    assert text.startswith("jn_")
    assert len(text) <= LONGEST_KEY


async def test_table_holds_no_text_of_a_key(pool: Pool):
    key = await Seed(pool).key()
    async with pool.connection() as connection:
        row = await connection.fetchrow("SELECT api_key::text AS everything, hash FROM api_key")
    assert row
    assert key.text not in row["everything"]
    assert row["hash"] == hash_key(key.text)


async def test_keys_of_one_tenant_share_it(pool: Pool):
    seed = Seed(pool)
    first, second, other = await seed.key("a"), await seed.key("a"), await seed.key("b")
    assert first.tenant_id == second.tenant_id != other.tenant_id
    assert first.text != second.text


async def test_unknown_revoked_expired_and_malformed_keys_are_refused_alike(pool: Pool):
    seed = Seed(pool)
    revoked, expired = await seed.key(), await seed.key()
    async with pool.connection() as connection:
        assert await revoke_key(connection, revoked.key_id)
        await connection.execute(EXPIRE, expired.key_id)
    ring = KeyRing(pool)
    for text in (revoked.text, expired.text, "jn_nobody", "", "é", "a" * (LONGEST_KEY + 1), "a\0b"):
        with pytest.raises(NotAuthenticated) as refused:
            await ring.principal(text)
        assert str(refused.value) == "A valid API key or token is needed."


async def test_revoked_key_is_refused_once_it_is_forgotten(pool: Pool):
    key = await Seed(pool).key()
    remembering, forgetful = KeyRing(pool), KeyRing(pool, remember_seconds=0)
    for ring in (remembering, forgetful):
        assert (await ring.principal(key.text)).key_id == key.key_id
        await ring.principal_of(key.key_id)
    async with pool.connection() as connection:
        await revoke_key(connection, key.key_id)
    assert (await remembering.principal(key.text)).key_id == key.key_id
    await remembering.principal_of(key.key_id)
    with pytest.raises(NotAuthenticated):
        await forgetful.principal(key.text)
    with pytest.raises(NotAuthenticated):
        await forgetful.principal_of(key.key_id)


async def test_keys_are_changed_with_an_overlap(pool: Pool):
    old, new = await Seed(pool).key("a"), await Seed(pool).key("a")
    during, after = KeyRing(pool), KeyRing(pool)
    assert (await during.principal(old.text)).tenant_id == (await during.principal(new.text)).tenant_id
    async with pool.connection() as connection:
        await revoke_key(connection, old.key_id)
    assert (await after.principal(new.text)).key_id == new.key_id
    with pytest.raises(NotAuthenticated):
        await after.principal(old.text)


async def test_no_text_of_a_key_is_remembered_or_compared(pool: Pool):
    """By its SHA-256 alone is a key found, here and in the table: how long that takes tells nothing of the key."""
    key, ring = await Seed(pool).key(), KeyRing(pool)
    await ring.principal(key.text)
    remembered = repr(vars(ring))
    assert repr(hash_key(key.text)) in remembered
    assert key.text not in remembered


async def test_hash_that_nobody_shows_any_more_is_dropped_when_the_next_key_is_remembered(
    pool: Pool, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(keys, "FORGET_SECONDS", 0.0)
    first, second, ring = await Seed(pool).key(), await Seed(pool).key(), KeyRing(pool, remember_seconds=0)
    for key in (first, second):
        await ring.principal(key.text)
        await ring.principal_of(key.key_id)
    remembered = repr(vars(ring))
    for key in (first, second):
        assert repr(hash_key(key.text)) not in remembered
        assert repr(key.key_id) not in remembered


async def test_many_requests_with_one_key_ask_about_it_once(pool: Pool, monkeypatch: pytest.MonkeyPatch):
    key, asked = await Seed(pool).key(), 0

    async def counted(connection: Any, text: str) -> Any:
        nonlocal asked
        asked += 1
        return await find_key(connection, text)

    monkeypatch.setattr(keys, "find_key", counted)
    ring = KeyRing(pool)
    found = await asyncio.gather(*(ring.principal(key.text) for _ in range(100)))
    assert {principal.key_id for principal in found} == {key.key_id}
    assert asked == 1


async def test_who_waits_too_long_for_the_answer_about_a_key_is_told_that_the_database_is_busy(
    pool: Pool, monkeypatch: pytest.MonkeyPatch
):
    key, answered = await Seed(pool).key(), asyncio.Event()

    async def late(connection: Any, text: str) -> Any:
        await answered.wait()
        return await find_key(connection, text)

    monkeypatch.setattr(keys, "find_key", late)
    monkeypatch.setattr(keys, "TURN_SECONDS", 0.05)
    ring = KeyRing(pool)
    first = asyncio.create_task(ring.principal(key.text))
    await asyncio.sleep(0)
    with pytest.raises(DatabaseBusy):
        await ring.principal(key.text)
    answered.set()
    assert (await first).key_id == key.key_id
    assert (await ring.principal(key.text)).key_id == key.key_id


async def test_keys_that_nobody_has_take_few_connections_and_hold_up_no_key_that_is_known(
    pool: Pool, monkeypatch: pytest.MonkeyPatch
):
    key, asking, answered = await Seed(pool).key(), set[str](), asyncio.Event()

    async def late(connection: Any, text: str) -> Any:
        asking.add(text)
        if text != key.text:
            await answered.wait()
        return await find_key(connection, text)

    monkeypatch.setattr(keys, "find_key", late)
    ring = KeyRing(pool, remember_seconds=0)
    await ring.principal(key.text)
    asking.clear()
    flood = [asyncio.create_task(ring.principal(f"jn_{n}")) for n in range(20)]
    await eventually(lambda: len(asking) >= 2, 10, "as many questions as there may be")
    assert (await ring.principal(key.text)).key_id == key.key_id
    assert len(asking) == 3, "two of them, and the known one"
    answered.set()
    answers = await asyncio.gather(*flood, return_exceptions=True)
    assert {type(answer) for answer in answers} == {NotAuthenticated}


async def test_revoking_twice_keeps_the_first_time_and_an_unknown_id_is_none(pool: Pool):
    key = await Seed(pool).key()
    async with pool.connection() as connection:
        await revoke_key(connection, key.key_id)
        (before,) = await list_keys(connection)
        assert await revoke_key(connection, key.key_id)
        (after,) = await list_keys(connection)
        assert not await revoke_key(connection, key.tenant_id)
    assert before.revoked_at == after.revoked_at is not None


async def test_dev_key_is_made_once_and_refused_outside_dev(pool: Pool):
    async with pool.connection() as connection:
        await refuse_dev_key(connection)
        await ensure_dev_key(connection)
        await ensure_dev_key(connection)
        (listed,) = await list_keys(connection)
        assert (listed.tenant, sorted(listed.scopes)) == ("dev", ["admin", "read", "write"])
        assert await find_key(connection, DEV_API_KEY)
        with pytest.raises(DevKeyOutsideDev):
            await refuse_dev_key(connection)
        await revoke_key(connection, listed.key_id)
        await refuse_dev_key(connection)


async def test_quotas_come_with_the_key_and_are_learnt_when_it_is_looked_at_again(pool: Pool):
    seed = Seed(pool)
    key = await seed.key("a")
    remembering, forgetful = KeyRing(pool), KeyRing(pool, remember_seconds=0)
    assert (await remembering.principal(key.text)).tenant_quotas == {}
    await seed.limit(key, "a", streams=7)
    await seed.limit(key, of_key=True, streams=None)
    assert (await remembering.principal(key.text)).tenant_quotas == {}
    for principal in (await forgetful.principal(key.text), await forgetful.principal_of(key.key_id)):
        assert (principal.tenant_quotas, principal.key_quotas) == ({"streams": 7}, {"streams": None})


async def test_development_key_alone_is_unmetered(pool: Pool):
    async with pool.connection() as connection:
        await ensure_dev_key(connection)
        dev = await find_key(connection, DEV_API_KEY)
        other = await find_key(connection, (await Seed(pool).key("dev")).text)
    assert dev
    assert other
    assert (dev.unmetered, other.unmetered) == (True, False)
