"""How long something took to come true again, in seconds; None: it did not, within its time. Or nobody could look."""

from typing import Final, Literal

NOT_LOOKED_AT: Final = "not looked at"
"""The key may not see it, or it is out of reach. It is neither good nor bad, and no figure."""

type NotLookedAt = Literal["not looked at"]
type Waited = float | NotLookedAt | None
