"""Clients that in truth have machines of their own."""

import os
import sys


def give_way() -> None:
    """Run only where nobody else would: on the same cores, a client's own work would pass for a service's slowness."""
    if sys.platform == "linux":
        os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))
