"""The parent of several processes, with small children that behave in every way."""

import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Generator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from juinie_shared.runtime.hand_over import Inbox
from juinie_shared.runtime.place import Place
from juinie_shared.runtime.port import share_port
from juinie_testkit.family import children_of, is_there
from juinie_testkit.waits import eventually

SOON = 30
CONNECTIONS = 40
PROGRAM = """
import asyncio, os, pathlib, sys
from juinie_shared.runtime import parent
from juinie_shared.runtime.sibling import Sibling

me = Sibling.from_environment()
if me is None:
    parent.FIRST_PAUSE_SECONDS = 0.0
    parent.BEYOND_DRAIN_SECONDS = 0.5
    PARENT
    sys.exit(parent.Parent("127.0.0.1", 0, 2, float(sys.argv[2])).run())
me.die_with_parent()
directory = pathlib.Path(sys.argv[1])
with (directory / "lives").open("a") as lives:
    print(me.index, os.getpid(), file=lives)

def take_port():
    "Its number is there as a whole, or not yet: another child may have told it before."
    listener = me.take_port()
    listener.setblocking(False)
    told = directory / f"port-{os.getpid()}"
    told.write_text(str(listener.getsockname()[1]))
    told.rename(directory / "port")
    return listener

async def serve(listener):
    "Tell each who connects which one this is."
    while True:
        peer, _ = await asyncio.get_running_loop().sock_accept(listener)
        peer.send(b"%d" % me.index)
        peer.close()

async def live():
    stopping = asyncio.Event()
    me.watch_parent(stopping)
    serving = asyncio.create_task(serve(take_port()))
    me.tell_started(0)
    (directory / f"up-{os.getpid()}").touch()
    await stopping.wait()

BEHAVIOUR
asyncio.run(live())
"""


LEAVES_ALONE = """
import socket
from juinie_shared.runtime.hand_over import hand, handed

async def live():
    me.tell_started(0)
    (directory / f"started-{me.index}").touch()
    if me.index == 1:
        me.tell_leaving()
        while not (directory / "started-0").exists():
            await asyncio.sleep(0.01)
        inboxes, (own, _) = me.take_inboxes(), socket.socketpair()
        while not hand(inboxes[1], own.fileno(), b"head", 1):
            await asyncio.sleep(0.01)
    else:
        inbox = me.take_inbox()
        while not (came := [one.head for one in handed(inbox)]):
            await asyncio.sleep(0.01)
        (directory / "came.new").write_bytes(came[0])
        (directory / "came.new").rename(directory / "came")
    await asyncio.Event().wait()
"""
"""The second child hands itself a connection once it has said that it leaves."""


class Family:
    """A parent, and where its children write."""

    def __init__(self, directory: Path, behaviour: str, drain_seconds: float, parent: str) -> None:
        self.directory = directory
        program = PROGRAM.replace("BEHAVIOUR", behaviour).replace("PARENT", parent)
        with (directory / "log").open("w") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-c", program, str(directory), str(drain_seconds)],
                stdout=log,
                stderr=subprocess.STDOUT,
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

    def lives_of(self, index: int) -> list[int]:
        """Processes that a place had, in order."""
        return [pid for place, pid in self.lives if place == index]

    def who_answers(self) -> int:
        """Connect: which of the places is it?"""
        port = int((self.directory / "port").read_text())
        with socket.create_connection(("127.0.0.1", port), SOON) as peer:
            return int(peer.recv(1))

    async def until_up(self) -> set[int]:
        await eventually(lambda: len(self.up) == 2, SOON, "both children have started")
        return self.up

    def wait(self) -> tuple[int, str]:
        """The exit code, and what was said."""
        code = self.process.wait(SOON)
        return code, (self.directory / "log").read_text()


@contextmanager
def family(
    directory: Path, behaviour: str = "", drain_seconds: float = 60, parent: str = ""
) -> Generator[Family]:
    """`parent`: what that one does before it has children."""
    made = Family(directory, behaviour, drain_seconds, parent)
    try:
        yield made
    finally:
        made.process.kill()
        made.process.wait()


INTERPRETER = "sys.executable = sys.argv[1] + '/python'; parent.FIRST_PAUSE_SECONDS, parent.STEADY_SECONDS = {pause}, 0.0"
"""A parent whose children need a file, so that it can be taken away, and for which each that started was there for long."""


def interpreter_in(directory: Path) -> Path:
    file = directory / "python"
    file.write_text(f'#!/bin/sh\nexec {sys.executable} "$@"\n')
    file.chmod(0o755)
    return file


async def until_said(made: Family, text: str) -> str:
    """The line of the log that has it."""
    log = made.directory / "log"
    await eventually(lambda: text in log.read_text(), SOON, text)
    return next(line for line in log.read_text().splitlines() if text in line)


async def all_gone(pids: set[int]) -> None:
    await eventually(lambda: not any(map(is_there, pids)), SOON, "no child is left")


async def test_more_descriptors_than_1024_are_no_fault(tmp_path):
    many = "import resource; most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]; resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))"
    with family(tmp_path, parent=f"{many}; held = [os.dup(0) for _ in range(1100)]") as made:
        await made.until_up()
        os.kill(made.lives_of(1)[0], signal.SIGKILL)
        await eventually(lambda: len(made.lives_of(1)) == 2, SOON, "another one")
        await made.until_up()
        made.process.terminate()
        assert made.wait()[0] == 0


async def test_what_is_handed_to_a_child_that_is_leaving_goes_to_its_sibling(tmp_path):
    """Also one that leaves alone and takes its time."""
    with family(tmp_path, LEAVES_ALONE) as made:
        await eventually(lambda: (tmp_path / "came").exists(), SOON, "the connection came to the other one")
        assert (tmp_path / "came").read_bytes() == b"head"
        assert len(made.lives_of(0)) == len(made.lives_of(1)) == 1


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
    behaviour = "me.tell_started(0); me.tell_wrong_setup('The setup\\nis wrong.'); sys.exit(1)"
    with family(tmp_path, behaviour) as made:
        assert made.wait() == (1, "The setup is wrong.\n")


async def test_a_fault_that_may_pass_ends_nobody_else_once_its_child_had_started(tmp_path):
    behaviour = (
        "if me.index and not (directory / 'first').exists():\n"
        "  (directory / 'first').touch(); me.tell_started(0); me.tell_fault('It is\\naway.'); sys.exit(1)"
    )
    with family(tmp_path, behaviour) as made:
        await made.until_up()
        assert "It is away." in await until_said(made, "process_lost")
        assert len(made.lives_of(0)) == 1
        made.process.terminate()
        assert made.wait()[0] == 0


async def test_a_replacement_that_cannot_start_leaves_its_sibling_alone(tmp_path):
    """A package that is being upgraded, too little memory: the setup was right."""
    behaviour = "if me.index and (directory / 'upgraded').exists(): sys.exit('broken')"
    with family(tmp_path, behaviour) as made:
        await made.until_up()
        (tmp_path / "upgraded").touch()
        os.kill(made.lives_of(1)[0], signal.SIGKILL)
        await eventually(lambda: len(made.lives_of(1)) > 4, SOON, "tries")
        (tmp_path / "upgraded").unlink()
        await made.until_up()
        assert len(made.lives_of(0)) == 1
        made.process.terminate()
        assert made.wait()[0] == 0


async def test_a_replacement_that_the_system_refuses_is_tried_again_after_a_pause(tmp_path):
    """Also when the one before it was there for long, and not with every turn of the loop."""
    file = interpreter_in(tmp_path)
    with family(tmp_path, parent=INTERPRETER.format(pause=3600)) as made:
        await made.until_up()
        file.unlink()
        os.kill(made.lives_of(1)[0], signal.SIGKILL)
        line = await until_said(made, "process_refused")
        assert "No such file" in line
        assert float(re.findall(r"pause_seconds\W+([0-9.]+)", line)[0]) > 0
        # Its listener rests: nobody waits for a process that is not begun.
        assert {made.who_answers() for _ in range(CONNECTIONS)} == {0}
        made.process.terminate()
        assert made.wait()[1].count("process_refused") == 1


async def test_a_replacement_that_the_system_gave_at_last_serves(tmp_path):
    file = interpreter_in(tmp_path)
    with family(tmp_path, parent=INTERPRETER.format(pause=0.01)) as made:
        await made.until_up()
        file.unlink()
        os.kill(made.lives_of(1)[0], signal.SIGKILL)
        log = tmp_path / "log"
        await eventually(lambda: log.read_text().count("process_refused") > 2, SOON, "refused again")
        interpreter_in(tmp_path)
        await made.until_up()
        await eventually(lambda: made.who_answers() == 1, SOON, "an answer of the replacement")


NO_DESCRIPTORS = (
    "import resource; begin = parent.Place.start;"
    "parent.Place.start = lambda *place: (resource.setrlimit(resource.RLIMIT_NOFILE, (3, 3)), begin(*place))"
)


@pytest.mark.parametrize(
    ("parent", "reason"),
    [
        (INTERPRETER.format(pause=0), "No such file or directory"),
        (NO_DESCRIPTORS, "Too many open files"),  # no child, no signal that wakes
    ],
)
async def test_a_system_that_gives_no_process_at_the_start_is_told_in_a_line(tmp_path, parent, reason):
    with family(tmp_path, parent=parent) as made:
        assert made.wait() == (1, f"The system gives no process: {reason}.\n")


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere all accept from one listener")
def test_a_listener_rests_until_there_is_a_process(monkeypatch, tmp_path):
    """Whoever connected before would be reset."""
    monkeypatch.setattr(sys, "executable", str(tmp_path / "away"))
    (listener,) = share_port("127.0.0.1", 0, 1)
    with listener, socket.socket(socket.AF_UNIX) as asked, closing(Inbox.make()) as inbox:
        address = listener.getsockname()
        listener.shutdown(socket.SHUT_RD)
        with pytest.raises(FileNotFoundError):
            Place(0, listener, asked, inbox).start("", [inbox])
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(address)


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere all accept from one listener")
async def test_the_port_of_a_child_that_died_twice_rests_until_the_next(tmp_path):
    """Its siblings get all connections meanwhile."""
    with family(tmp_path, parent="parent.FIRST_PAUSE_SECONDS = 3600.0") as made:
        await made.until_up()
        os.kill(made.lives_of(1)[0], signal.SIGKILL)
        await eventually(lambda: len(made.lives_of(1)) == 2, SOON, "another one, at once")
        await made.until_up()
        os.kill(made.lives_of(1)[1], signal.SIGKILL)
        await until_said(made, "8.0")
        assert {made.who_answers() for _ in range(CONNECTIONS)} == {0}


async def test_the_port_of_a_child_that_died_twice_is_listened_at_again(tmp_path):
    with family(tmp_path, parent="parent.FIRST_PAUSE_SECONDS = 0.01") as made:
        for life in range(3):
            await made.until_up()
            os.kill(made.lives_of(1)[life], signal.SIGKILL)
            await eventually(lambda: len(made.lives_of(1)) == life + 2, SOON, "another one")  # noqa: B023
        await made.until_up()
        await eventually(lambda: made.who_answers() == 1, SOON, "an answer of the replacement")


async def test_a_fault_while_stopping_is_told_once(tmp_path):
    behaviour = (
        "asyncio.run(live())\nme.tell_fault('The end is bad.'); sys.exit(1)\nlive = lambda: asyncio.sleep(0)"
    )
    with family(tmp_path, behaviour) as made:
        await made.until_up()
        made.process.terminate()
        assert made.wait() == (1, "The end is bad.\n")


async def test_the_parent_says_of_a_child_that_is_not_there_that_it_is_absent(tmp_path):
    """Its listener is the parent's, who turns questions away; those of one that hangs wait."""
    (tmp_path / "asked").mkdir()
    behaviour = (
        "(directory / 'asked' / str(me.index)).write_text(me.address_of(me.index).replace(chr(0), '@'))\n"
        "if me.index and len(list(directory.glob('up-*'))) > 1: os.abort()"
    )
    with family(tmp_path, behaviour, parent="parent.FIRST_PAUSE_SECONDS = 3600.0") as made:
        await made.until_up()
        address = (tmp_path / "asked" / "1").read_text().replace("@", "\0")
        asked = [socket.socket(socket.AF_UNIX) for _ in range(3)]
        for peer in asked:
            peer.settimeout(SOON)
            peer.connect(address)  # it never accepts: they wait
        os.kill(made.lives_of(1)[0], signal.SIGKILL)
        for peer in asked:
            assert peer.recv(1) == b""
            peer.close()
        await eventually(lambda: len(made.lives_of(1)) == 2, SOON, "one that aborts")
        await until_said(made, "8.0")
        with socket.socket(socket.AF_UNIX) as peer:
            peer.settimeout(SOON)
            peer.connect(address)
            assert peer.recv(1) == b""


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
