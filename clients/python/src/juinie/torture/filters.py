"""Which types a watcher asks for: some that there are, and some that only look alike. A filter is exact."""

import random

from juinie.torture.leases import EXPIRED, STARTED
from juinie.torture.payloads import CREATED, TYPES

_ALIKE = ("TEXT_MESSAGE", "tool", "tool/call.result", "Torture", "run")
_MOST = 3


def some_types(chance: random.Random) -> frozenset[str]:
    """One to three; where none of them comes, the watcher sees the end and ids alone."""
    choice = sorted({*TYPES, CREATED, STARTED, EXPIRED, *_ALIKE})
    return frozenset(chance.sample(choice, chance.randint(1, _MOST)))
