"""What has ended still counts."""

import os
import subprocess
import sys
from collections.abc import Callable
from types import ModuleType

BUSY = "import time\nwhile time.process_time() < 0.3: pass"


def test_children_that_have_ended_are_counted(bench_module: Callable[[str], ModuleType]) -> None:
    clocks = bench_module("clocks")
    before = clocks.ended_seconds(os.getpid())
    subprocess.run([sys.executable, "-c", BUSY], check=True)
    assert clocks.ended_seconds(os.getpid()) - before >= 0.2
