"""A stream token opens one run until it expires; everything else is refused in one and the same way."""

import base64
import hmac
import json
from datetime import UTC, datetime, timedelta
from uuid import UUID

import jwt
import pytest

from juinie_shared.contracts.stream_tokens import LEEWAY_SECONDS, StreamToken, StreamTokenSigner
from juinie_shared.domain.errors import NotAuthenticated
from juinie_shared.domain.ids import KeyId, RunId, TenantId

RUN = RunId(UUID("01930b7e-4c00-7a11-8b22-c3d4e5f60718"))
TENANT = TenantId(UUID("01930b7e-0000-7000-8000-00000000000a"))
KEY = KeyId(UUID("01930b7e-0000-7000-8000-00000000000b"))
SECRET = "s" * 64
OTHER_SECRET = "o" * 64
SIGNER = StreamTokenSigner({"new": SECRET, "old": OTHER_SECRET})


def forge(secret: str = SECRET, kid: str | None = "new", algorithm: str = "HS256", **changes: object) -> str:
    """A token made by hand: good unless changed. A claim changed to None is left out."""
    now = int(datetime.now(UTC).timestamp())
    claims: dict[str, object] = {
        "aud": "juinie.stream", "run": str(RUN), "ten": str(TENANT), "key": str(KEY), "iat": now, "exp": now + 3600,
    }  # fmt: skip
    claims = {name: value for name, value in (claims | changes).items() if value is not None}
    return jwt.encode(claims, secret, algorithm=algorithm, headers={"kid": kid} if kid else {})


def unsigned(header: dict[str, str]) -> str:
    _, claims, _ = forge().split(".")
    return f"{base64.urlsafe_b64encode(json.dumps(header).encode()).decode().rstrip('=')}.{claims}."


def test_signed_token_says_what_it_opens():
    token, expires_at = SIGNER.sign(RUN, TENANT, KEY, ttl_seconds=60)
    assert SIGNER.verify(token) == StreamToken(RUN, TENANT, KEY, expires_at)
    assert expires_at.microsecond == 0
    assert timedelta(0) <= datetime.now(UTC) + timedelta(seconds=60) - expires_at < timedelta(seconds=5)


def test_first_key_signs_and_every_key_verifies():
    token, _ = SIGNER.sign(RUN, TENANT, KEY, ttl_seconds=60)
    assert jwt.get_unverified_header(token) == {"alg": "HS256", "kid": "new", "typ": "JWT"}
    assert SIGNER.verify(forge(OTHER_SECRET, "old")).run_id == RUN


def test_token_made_by_hand_from_the_documented_claims_is_good():
    assert SIGNER.verify(forge()).key_id == KEY


def test_clocks_may_differ_by_the_leeway():
    now = int(datetime.now(UTC).timestamp())
    assert SIGNER.verify(forge(exp=now - LEEWAY_SECONDS + 10)).run_id == RUN
    assert SIGNER.verify(forge(iat=now + LEEWAY_SECONDS - 10)).run_id == RUN


def refused() -> dict[str, str]:
    now = int(datetime.now(UTC).timestamp())
    good = forge()
    return {
        "expired": forge(exp=now - LEEWAY_SECONDS - 10),
        "not good yet": forge(nbf=now + 86_000),
        "made tomorrow": forge(iat=now + 86_400, exp=now + 2 * 86_400),
        "for another audience": forge(aud="juinie.api"),
        "for no audience": forge(aud=None),
        "signed with another secret": forge(OTHER_SECRET),
        "unknown key id": forge(kid="nobody"),
        "no key id": forge(kid=None),
        "another algorithm": forge(algorithm="HS512"),
        "alg none": unsigned({"alg": "none", "kid": "new"}),
        "alg NONE in capitals": unsigned({"alg": "nOnE", "kid": "new"}),
        "signature cut off": good.rpartition(".")[0] + ".",
        "signature of two parts": good.rpartition(".")[0],
        "no run": forge(run=None),
        "run that is no id": forge(run="all"),
        "run that is no text": forge(run=7),
        "no tenant": forge(ten=None),
        "no key": forge(key=None),
        "a day for its life": forge(exp=now + 86_400),
        "a minute more than any is given": forge(exp=now + 3660),
        "not yet good": forge(nbf=now + 3000),
        "made in the future": forge(iat=now + 3000),
        "no time of making": forge(iat=None),
        "key id that is a path": forge(kid="../../../dev/null"),
        "key id of SQL": forge(kid="new' OR '1'='1"),
        "the secret as a public key": unsigned({"alg": "RS256", "kid": "new"}) + "AAAA",
        "no expiry": forge(exp=None),
        "expiry that is no number": forge(exp="soon"),
        "expiry past all calendars": forge(exp=10**18),
        "key id that is no text": unsigned({"alg": "HS256", "kid": ["new"]}),  # type: ignore[dict-item]
        "empty": "",
        "dots": "..",
        "garbage": "garbage",
        "not ASCII": "é.é.é",
        "an API key": "jn_dev_local_only",
        "very long": "a" * 100_000,
    }


@pytest.mark.parametrize("token", refused().values(), ids=refused())
def test_everything_else_is_refused_alike(token: str):
    with pytest.raises(NotAuthenticated) as refusal:
        SIGNER.verify(token)
    assert str(refusal.value) == "A valid API key or token is needed."


def test_signing_keys_are_changed_with_an_overlap():
    before, during, after = (
        StreamTokenSigner({"old": OTHER_SECRET}), StreamTokenSigner({"new": SECRET, "old": OTHER_SECRET}), StreamTokenSigner({"new": SECRET}),
    )  # fmt: skip
    old, _ = before.sign(RUN, TENANT, KEY, 60)
    new, _ = during.sign(RUN, TENANT, KEY, 60)
    assert during.verify(old).run_id == during.verify(new).run_id == after.verify(new).run_id == RUN
    with pytest.raises(NotAuthenticated):
        after.verify(old)
    with pytest.raises(NotAuthenticated):
        before.verify(new)


def test_signatures_are_compared_in_constant_time(monkeypatch: pytest.MonkeyPatch):
    compared, compare = list[tuple[bytes, bytes]](), hmac.compare_digest

    def counting(left: bytes, right: bytes) -> bool:
        compared.append((left, right))
        return compare(left, right)

    monkeypatch.setattr(hmac, "compare_digest", counting)
    SIGNER.verify(forge())
    with pytest.raises(NotAuthenticated):
        SIGNER.verify(forge(OTHER_SECRET))
    assert [left == right for left, right in compared] == [True, False]
