"""Stream tokens: signed leave to watch one run, for clients that cannot send a header (EventSource).

A JWT (RFC 7519), HS256, with the signing key's id in its header. It names the API key that asked for it, so that
revoking the key ends the token too. The first signing key signs; all of them verify, which makes rotation possible.
The signature is compared in constant time (PyJWT, `hmac.compare_digest`); `kid` is looked up among our own names only.
"""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import jwt

from juinie_shared.domain.errors import NotAuthenticated
from juinie_shared.domain.ids import KeyId, RunId, TenantId

AUDIENCE = "juinie.stream"
LEEWAY_SECONDS = 30
LONGEST_SECONDS = 3600
"""Nobody is given a token for longer; so none that says otherwise is believed, whoever signed it."""
_ALGORITHM = "HS256"


@dataclass(frozen=True, slots=True)
class StreamToken:
    """What a token says: this run of this tenant may be read until `expires_at`, while `key_id` is valid."""

    run_id: RunId
    tenant_id: TenantId
    key_id: KeyId
    expires_at: datetime


class StreamTokenSigner:
    """Signs and verifies stream tokens.

    `signing_keys` maps key ids to secrets, the one that signs first.
    """

    def __init__(self, signing_keys: dict[str, str]) -> None:
        self._keys = signing_keys

    def sign(
        self, run_id: RunId, tenant_id: TenantId, key_id: KeyId, ttl_seconds: int
    ) -> tuple[str, datetime]:
        """A token and the moment it expires."""
        now = datetime.now(UTC)
        expires_at = (now + timedelta(seconds=ttl_seconds)).replace(microsecond=0)
        claims: dict[str, Any] = {
            "aud": AUDIENCE, "run": str(run_id), "ten": str(tenant_id), "key": str(key_id),
            "iat": int(now.timestamp()), "exp": int(expires_at.timestamp()),
        }  # fmt: skip
        name, secret = next(iter(self._keys.items()))
        return jwt.encode(claims, secret, algorithm=_ALGORITHM, headers={"kid": name}), expires_at

    def verify(self, token: str) -> StreamToken:
        """What the token says.

        Raises:
            NotAuthenticated: forged, expired, for something else, or no token at all: one answer for all.
        """
        try:
            secret = self._keys[jwt.get_unverified_header(token)["kid"]]
            claims: dict[str, Any] = jwt.decode(
                token, secret, algorithms=[_ALGORITHM], audience=AUDIENCE, leeway=LEEWAY_SECONDS,
                options={"require": ["aud", "exp", "iat", "run", "ten", "key"]},
            )  # fmt: skip
            if int(claims["exp"]) - int(claims["iat"]) > LONGEST_SECONDS:
                raise NotAuthenticated
            return StreamToken(
                RunId(UUID(claims["run"])), TenantId(UUID(claims["ten"])), KeyId(UUID(claims["key"])),
                datetime.fromtimestamp(claims["exp"], UTC),
            )  # fmt: skip
        except (
            jwt.PyJWTError,
            KeyError,
            TypeError,
            ValueError,
            AttributeError,
            OverflowError,
            OSError,
        ) as error:
            raise NotAuthenticated from error
