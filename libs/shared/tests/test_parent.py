"""The parent of several processes, with small children that behave in every way."""

import os
import signal
import subprocess
import sys
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

import pytest

from juinie_testkit.family import children_of, is_there
from juinie_testkit.waits import eventually

SOON = 30
PROGRAM = """
import asyncio, os, pathlib, sys
from juinie_shared.runtime import parent
from juinie_shared.runtime.sibling import Sibling

me = Sibling.from_environment()
if me is None:
    parent.FIRST_PAUSE_SECONDS = 0.0
    parent.BEYOND_DRAIN_SECONDS = 0.5
    sys.exit(parent.Parent("127.0.0.1", 0, 2, float(sys.argv[2])).run())
me.die_with_parent()
directory = pathlib.Path(sys.argv[1])
with (directory / "lives").open("a") as lives:
    print(me.index, os.getpid(), file=lives)

async def live():
    stopping = asyncio.Event()
    me.watch_parent(stopping)
    me.tell_started(0)
    (directory / f"up-{os.getpid()}").touch()
    await stopping.wait()

BEHAVIOUR
asyncio.run(live())
"""


class Family:
    """A parent, and where its children write."""

    def __init__(self, directory: Path, behaviour: str, drain_seconds: float) -> None:
        self.directory = directory
        program = PROGRAM.replace("BEHAVIOUR", behaviour)
        self.process = subprocess.Popen(
            [sys.executable, "-c", program, str(directory), str(drain_seconds)],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    @property
    def up(self) -> set[int]:
        """Children that have started and are there."""
        return {pid for pid in children_of(self.process.pid) if (self.directory / f"up-{pid}").exists()}

    @property
    def lives(self) -> list[tuple[int, int]]:
        """Index and process of each that ever began, in order."""
        file = self.directory / "lives"
        lines = file.read_text().splitlines() if file.exists() else []
        return [(int(index), int(pid)) for index, pid in map(str.split, lines)]

    async def until_up(self) -> set[int]:
        await eventually(lambda: len(self.up) == 2, SOON, "both children have started")
        return self.up

    def wait(self) -> tuple[int, str]:
        """The exit code, and what was said."""
        said, _ = self.process.communicate(timeout=SOON)
        return self.process.returncode, said


@contextmanager
def family(directory: Path, behaviour: str = "", drain_seconds: float = 60) -> Generator[Family]:
    made = Family(directory, behaviour, drain_seconds)
    try:
        yield made
    finally:
        made.process.kill()
        made.process.communicate()


async def all_gone(pids: set[int]) -> None:
    await eventually(lambda: not any(map(is_there, pids)), SOON, "no child is left")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_a_signal_stops_all_and_the_exit_code_is_0(tmp_path, number):
    with family(tmp_path) as made:
        pids = await made.until_up()
        made.process.send_signal(number)
        assert made.wait() == (0, "")
    await all_gone(pids)


async def test_a_child_that_is_killed_is_replaced_and_its_sibling_left_alone(tmp_path):
    with family(tmp_path) as made:
        await made.until_up()
        (_, first), (_, second) = sorted(made.lives)
        os.kill(first, signal.SIGKILL)
        await eventually(lambda: len(made.lives) == 3, SOON, "another one")
        assert await made.until_up() > {second}
        assert made.lives[-1][0] == 0
        made.process.terminate()
        code, said = made.wait()
    assert code == 0
    assert "process_lost" in said


async def test_a_child_that_dies_again_and_again_is_started_again_and_again(tmp_path):
    with family(tmp_path, "if me.index: me.tell_started(0); os.abort()") as made:
        await eventually(lambda: len(made.lives) > 5, SOON, "many lives")
        assert [index for index, _ in made.lives].count(0) == 1
        made.process.terminate()
        made.wait()


async def test_a_child_that_cannot_start_ends_all_with_its_exit_code_once(tmp_path):
    with family(tmp_path, "if me.index: sys.exit('broken')") as made:
        code, said = made.wait()
        assert (code, said.count("broken")) == (1, 1)
        assert len(made.lives) <= 2


async def test_what_is_wrong_with_the_setup_is_told_once_for_all(tmp_path):
    behaviour = "me.tell_started(0); me.tell_fault('The setup\\nis wrong.'); sys.exit(1)"
    with family(tmp_path, behaviour) as made:
        assert made.wait() == (1, "The setup is wrong.\n")


async def test_a_child_that_fails_while_it_stops_gives_its_exit_code(tmp_path):
    with family(
        tmp_path, "asyncio.run(live())\nif me.index: sys.exit(7)\nlive = lambda: asyncio.sleep(0)"
    ) as made:
        await made.until_up()
        made.process.terminate()
        assert made.wait() == (7, "")


async def test_a_child_that_hangs_is_killed_when_its_time_to_stop_is_up(tmp_path):
    with family(tmp_path, drain_seconds=0) as made:
        pids = await made.until_up()
        os.kill(max(pids), signal.SIGSTOP)
        made.process.terminate()
        code, said = made.wait()
    assert code == 128 + signal.SIGKILL
    assert "process_killed" in said
    await all_gone(pids)


async def test_a_second_signal_ends_all_at_once(tmp_path):
    with family(tmp_path) as made:
        pids = await made.until_up()
        for pid in pids:
            os.kill(pid, signal.SIGSTOP)
        made.process.terminate()
        made.process.send_signal(signal.SIGINT)
        code, _ = made.wait()
    assert code == 130
    await all_gone(pids)


@pytest.mark.parametrize("frozen", [False, True])
async def test_no_child_outlives_a_parent_that_is_killed(tmp_path, frozen):
    with family(tmp_path) as made:
        pids = await made.until_up()
        if frozen:
            os.kill(min(pids), signal.SIGSTOP)
        made.process.kill()
        await all_gone(pids)
