"""What a deleted run leaves behind goes, in small batches, once nothing of it is left to publish.

Deleting hides the run at once; its events stay until Kafka has them. Its tombstone stays for ever. Who has the duty of
retention does this, too.
"""

import asyncio
import time
from typing import Protocol

from juinie_publisher.core.duties import HasDuty
from juinie_publisher.core.pause import pause
from juinie_publisher.telemetry import Telemetry
from juinie_shared.domain.errors import Transient

EVERY_SECONDS = 2.0
BATCH = 1000
REST = 1
"""After a batch we rest so many times as long as it took: a long queue of runs is no reason to hurt the others."""


class DeletedRuns(Protocol):
    async def purge_some(self, batch: int) -> tuple[bool, bool]:
        """Delete up to `batch` events and keys of one run; whether there was such a run, whether it is gone now."""
        ...


async def purge(runs: DeletedRuns, has_duty: HasDuty, telemetry: Telemetry, stopping: asyncio.Event) -> None:
    """Remove deleted runs until `stopping` is set."""
    while not stopping.is_set():
        began = time.monotonic()
        found = gone = False
        try:
            if has_duty():
                found, gone = await runs.purge_some(BATCH)
        except Transient as error:
            telemetry.failed("purge", error)
        if gone:
            telemetry.run_purged()
        await pause(stopping, REST * (time.monotonic() - began) if found else EVERY_SECONDS)
