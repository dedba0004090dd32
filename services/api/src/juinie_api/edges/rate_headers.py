"""`RateLimit-Policy` and `RateLimit`, as draft-ietf-httpapi-ratelimit-headers-11 has them: lists of items, each a
policy's name with parameters (RFC 9651).
"""

from collections.abc import Sequence

from juinie_api.core.windows import Standing, Use

_UNIT = {Use.REQUESTS: "", Use.EVENTS: ';qu="events"', Use.BYTES: ';qu="content-bytes"'}
"""`qu` of the quota; requests need none. `events` is a unit of ours."""


def rate_headers(standings: Sequence[Standing]) -> list[tuple[bytes, bytes]]:
    """`q` of `w` seconds may be used up; `r` is left, and all of it is there again after `t` seconds."""
    policies = ", ".join(
        f'"{at.policy.name}";q={at.policy.amount};w={at.policy.multiples}{_UNIT[at.policy.use]}'
        for at in standings
    )
    left = ", ".join(f'"{at.policy.name}";r={at.left};t={at.seconds}' for at in standings)
    return [(b"ratelimit-policy", policies.encode()), (b"ratelimit", left.encode())]
