"""Runs a service as it is, and counts what its interpreter does between two signals.

    COUNTED_MODULE=juinie_api COUNTED_FILE=/tmp/counted.json python -m counted

SIGUSR1 begins, SIGUSR2 ends; each writes the file anew. Counted are steps (a Python function is entered, goes on after it waited,
or calls anything: a number that no machine makes larger or smaller) and the memory blocks that Python holds. How many
blocks it takes and gives back in between, CPython does not tell.
"""

import gc
import itertools
import json
import os
import runpy
import signal
import sys
from pathlib import Path
from typing import Any

_TOOL = sys.monitoring.PROFILER_ID
_EVENTS = (sys.monitoring.events.PY_START, sys.monitoring.events.PY_RESUME, sys.monitoring.events.CALL)


class _Count:
    """`steps` and `blocks` since the first signal; `serial` rises with each."""

    def __init__(self, file: Path) -> None:
        self._file, self._serial, self._blocks = file, 0, 0
        self._steps = itertools.count()

    def begin(self, *_: object) -> None:
        steps = self._steps = itertools.count()
        gc.collect()
        self._blocks = sys.getallocatedblocks()
        sys.monitoring.use_tool_id(_TOOL, "counted")
        for event in _EVENTS:
            sys.monitoring.register_callback(_TOOL, event, lambda *_: next(steps))
        sys.monitoring.set_events(_TOOL, sum(_EVENTS))
        self._tell()

    def end(self, *_: object) -> None:
        sys.monitoring.set_events(_TOOL, 0)
        sys.monitoring.free_tool_id(_TOOL)
        gc.collect()
        self._tell(steps=next(self._steps), blocks=sys.getallocatedblocks() - self._blocks)

    def _tell(self, **counted: Any) -> None:
        self._serial += 1
        written = self._file.with_suffix(".new")
        written.write_text(json.dumps({"serial": self._serial, **counted}))
        written.rename(self._file)


if __name__ == "__main__":
    count = _Count(Path(os.environ["COUNTED_FILE"]))
    signal.signal(signal.SIGUSR1, count.begin)
    signal.signal(signal.SIGUSR2, count.end)
    runpy.run_module(os.environ["COUNTED_MODULE"], run_name="__main__", alter_sys=True)
