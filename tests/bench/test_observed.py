"""What is counted of a process is what it does: the memory that Python asks for, its steps, its reads, writes and polls. What a
machine has not the means for is told.
"""

import asyncio
import shutil
import sys
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from contextlib import nullcontext
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

BENCH = Path(__file__).parents[2] / "bench"
SERVICE = """
import os, select
from itertools import repeat

def step():
    pass

kept = []
os.write(1, b"ready\\n")
while line := os.read(0, 100):
    what, times, size = line.split()
    times, size = int(times), int(size)
    match what:
        case b"ask":
            for _ in repeat(None, times):
                bytes(size)
        case b"keep":
            kept += [bytes(size) for _ in repeat(None, times)]
        case b"step":
            for _ in repeat(None, times):
                step()
        case b"poll":
            for _ in repeat(None, times):
                select.select([], [], [], 0)
        case b"write":
            for _ in repeat(None, times):
                os.write(2, b"x" * size)
    os.write(1, b"done\\n")
"""
TIMES = 2_000

type Count = Callable[[str], Awaitable[Mapping[str, float]]]

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="only Linux has /proc")
needs_compiler = pytest.mark.skipif(not shutil.which("cc"), reason="needs a C compiler")


@pytest.fixture
def observed(bench_module: Callable[[str], ModuleType], monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(BENCH)
    module = bench_module("observed")
    monkeypatch.setattr(module, "_CALM_SECONDS", 0)
    return module


@pytest.fixture
def tools(observed: ModuleType, tmp_path: Path) -> Any:
    tools = observed.Tools()
    tools.compile(tmp_path)
    return tools


@pytest.fixture
async def more(observed: ModuleType, tools: Any, tmp_path: Path) -> AsyncGenerator[Count]:
    """What a process does at a command that it does not do at the same command for nothing."""
    (tmp_path / "service.py").write_text(SERVICE)
    told = tmp_path / "told.json"
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "counted",
        stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.DEVNULL,
        env={
            "PYTHONPATH": f"{BENCH}:{tmp_path}", "COUNTED_MODULE": "service", "COUNTED_FILE": str(told),
            "COUNTED_ALLOCATIONS": tools.library,
        },
    )  # fmt: skip
    assert process.stdin is not None
    assert process.stdout is not None
    to, of = process.stdin, process.stdout
    assert await of.readline() == b"ready\n"
    await tools.try_to_trace(process.pid)
    service = observed.Observed(SimpleNamespace(pid=process.pid), SimpleNamespace(round_trips=0), told, tools)

    async def did(command: str) -> Mapping[str, float]:
        async def act() -> None:
            to.write(command.encode())
            assert await of.readline() == b"done\n"

        return await service.counted(lambda: nullcontext(act))

    async def more(command: str) -> Mapping[str, float]:
        nothing, something = await did("no 0 0"), await did(command)
        return {what: something[what] - nothing[what] for what in something}

    yield more
    to.close()
    assert await process.wait() == 0


@needs_compiler
@pytest.mark.parametrize("size", [100, 10_000], ids=["pymalloc", "malloc"])
async def test_each_time_that_python_asks_for_memory_counts_once(more: Count, size: int):
    did = await more(f"ask {TIMES} {size}")
    assert TIMES <= did["allocations"] < TIMES + 50
    assert TIMES * size <= did["allocated_bytes"] < TIMES * (size + 100)
    assert did["blocks_kept"] < 50


async def test_what_is_kept_is_counted(more: Count):
    assert TIMES - 50 < (await more(f"keep {TIMES} 100"))["blocks_kept"] < TIMES + 50


async def test_a_step_is_a_call_and_an_entry(more: Count):
    assert 2 * TIMES <= (await more(f"step {TIMES} 0"))["python_steps"] < 2 * TIMES + 50


async def test_reads_and_writes_are_counted(more: Count):
    did = await more(f"write {TIMES} 10")
    assert did["write_calls"] == TIMES
    assert did["bytes_written"] == TIMES * 10
    assert did["read_calls"] == 0


async def test_polls_and_all_other_system_calls_are_counted(more: Count, tools: Any):
    if not tools.trace:
        pytest.skip("no process can be traced here")
    did = await more(f"poll {TIMES} 0")
    assert did["polls"] == TIMES
    assert TIMES - 50 <= did["system_calls"] <= TIMES + 50


async def test_without_a_compiler_allocations_are_told_as_missing(
    observed: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("PATH", str(tmp_path))
    tools = observed.Tools()
    tools.compile(tmp_path)
    assert not tools.library
    assert tools.lines() == [
        "NOT COUNTED: allocations, allocated_bytes: allocations.c is a C program, and there is no C compiler (cc) here."
    ]


async def test_a_compiler_that_fails_is_told_with_what_it_says(
    observed: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    compiler = tmp_path / "cc"
    compiler.write_text("#!/bin/sh\necho no such option >&2; exit 1\n")
    compiler.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/bin:/usr/bin")
    tools = observed.Tools()
    tools.compile(tmp_path)
    assert tools.lines() == [
        "NOT COUNTED: allocations, allocated_bytes: cc does not take allocations.c: no such option."
    ]


async def test_what_cannot_be_traced_is_told_as_missing(observed: ModuleType):
    tools = observed.Tools()
    await tools.try_to_trace(1 << 22)  # no process has this number
    assert not tools.trace
    (line,) = tools.lines()
    assert line.startswith("NOT COUNTED: polls, system_calls: no process can be traced here (")
