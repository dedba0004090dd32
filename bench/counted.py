"""Runs a service as it is, and counts what its interpreter does between two signals.

    COUNTED_MODULE=juinie_api COUNTED_FILE=/tmp/counted.json COUNTED_ALLOCATIONS=/tmp/allocations python -m counted

SIGUSR1 begins, SIGUSR2 ends; each writes the file anew. Counted are the memory that Python asks for (`allocations.c`; where
`COUNTED_ALLOCATIONS` names no library, it is not) and the memory blocks that it holds. SIGRTMIN begins as well, and has steps counted, too: a
Python function is entered, goes on after it waited, or calls anything. No machine makes that number larger or smaller, but to
count it takes memory.
"""

import ctypes
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
_SET_PTRACER, _ANY = 0x59616D61, -1


class _Allocations:
    """What Python has asked for since this was made. Nothing where there is no library."""

    def __init__(self, library: str) -> None:
        self._counts: tuple[ctypes.c_ulonglong, ...] = ()
        if library:
            loaded = ctypes.PyDLL(library)
            self._counts = tuple(ctypes.c_ulonglong.in_dll(loaded, name) for name in ("requests", "bytes"))
            loaded.begin()

    def now(self) -> tuple[int, ...]:
        return tuple([count.value for count in self._counts])


class _Count:
    """All since the first signal; `serial` rises with each."""

    def __init__(self, file: Path, allocations: _Allocations) -> None:
        self._file, self._serial, self._blocks = file, 0, 0
        self._allocations, self._allocated = allocations, ()
        self._steps: itertools.count[int] | None = None

    def begin(self, number: int, _frame: object) -> None:
        gc.collect()
        self._blocks = sys.getallocatedblocks()
        if number == signal.SIGRTMIN:
            self._count_steps()
        self._tell()
        self._allocated = self._allocations.now()

    def end(self, *_: object) -> None:
        allocated = self._allocations.now()
        counted = dict(
            zip(
                ("allocations", "allocated_bytes"), map(int.__sub__, allocated, self._allocated), strict=False
            )
        )
        if self._steps is not None:
            sys.monitoring.set_events(_TOOL, 0)
            sys.monitoring.free_tool_id(_TOOL)
            counted["python_steps"], self._steps = next(self._steps), None
        gc.collect()
        self._tell(blocks_kept=sys.getallocatedblocks() - self._blocks, **counted)

    def _count_steps(self) -> None:
        steps = self._steps = itertools.count()
        sys.monitoring.use_tool_id(_TOOL, "counted")
        for event in _EVENTS:
            sys.monitoring.register_callback(_TOOL, event, lambda *_: next(steps))
        sys.monitoring.set_events(_TOOL, sum(_EVENTS))

    def _tell(self, **counted: Any) -> None:
        self._serial += 1
        written = self._file.with_suffix(".new")
        written.write_text(json.dumps({"serial": self._serial, **counted}))
        written.rename(self._file)


def _let_trace() -> None:
    """By any process of the same user, where Yama would have only our ancestors (prctl(2), PR_SET_PTRACER)."""
    ctypes.CDLL(None).prctl(_SET_PTRACER, ctypes.c_long(_ANY), 0, 0, 0)


if __name__ == "__main__":
    _let_trace()
    count = _Count(Path(os.environ["COUNTED_FILE"]), _Allocations(os.environ.get("COUNTED_ALLOCATIONS", "")))
    signal.signal(signal.SIGUSR1, count.begin)
    signal.signal(signal.SIGRTMIN, count.begin)
    signal.signal(signal.SIGUSR2, count.end)
    runpy.run_module(os.environ["COUNTED_MODULE"], run_name="__main__", alter_sys=True)
