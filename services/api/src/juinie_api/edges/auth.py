"""Who calls: `Authorization: Bearer <api key>`, or the same key as `X-Api-Key`."""

from juinie_api.edges.head import Head
from juinie_api.edges.problems import Refused
from juinie_shared.domain.errors import NotAuthenticated

SECURITY_SCHEMES = {
    "apiKey": {
        "type": "http",
        "scheme": "bearer",
        "description": "An API key: `Authorization: Bearer jn_…`.",
    },
    "apiKeyHeader": {"type": "apiKey", "in": "header", "name": "X-Api-Key", "description": "The same key."},
}


def api_key(head: Head) -> str:
    """The key that the request shows.

    Raises:
        NotAuthenticated: none, or not as a bearer.
        Refused: more than one, so that it is not clear who calls.
    """
    bearers, keys = head.all(b"authorization"), head.all(b"x-api-key")
    if len(bearers) + len(keys) > 1:
        raise Refused(400, "repeated_credential", "Give one API key, once.")
    if keys:
        return keys[0].strip()
    scheme, _, key = (bearers[0] if bearers else "").partition(" ")
    if scheme.lower() != "bearer":
        raise NotAuthenticated
    return key.strip()
