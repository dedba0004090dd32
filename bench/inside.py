"""A service that says how much it has of what only it can count: `BENCH_MODULE` names it.

SIGUSR1 writes `INSIDE/PID.json` anew: its tasks, and the memory blocks that Python holds.
"""

import asyncio
import json
import os
import runpy
import signal
import sys
from pathlib import Path


def _tell(*_: object) -> None:
    file = Path(os.environ["INSIDE"]) / f"{os.getpid()}.json"
    written = file.with_suffix(".new")
    written.write_text(json.dumps({"tasks": len(asyncio.all_tasks()), "blocks": sys.getallocatedblocks()}))
    written.rename(file)


if __name__ == "__main__":
    signal.signal(signal.SIGUSR1, _tell)
    runpy.run_module(os.environ["BENCH_MODULE"], run_name="__main__", alter_sys=True)
