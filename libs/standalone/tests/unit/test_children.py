"""A process is ours by pid and start time; what is ours is brought to an end, and nothing else."""

import os
import signal
import subprocess
import sys
from dataclasses import replace

import pytest

from juinie_standalone.children import Child, identity_of, last_lines, spawn, wait_until
from juinie_standalone.errors import DiedDuringStart, NotHealthyInTime
from juinie_standalone.home import Home

SLEEP = [sys.executable, "-c", "import time; time.sleep(60)"]
DEAF = [
    sys.executable,
    "-c",
    "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('deaf', flush=True); time.sleep(60)",
]


@pytest.fixture
def sleeper():
    process = subprocess.Popen(SLEEP, start_new_session=True)
    yield process
    process.kill()
    process.wait()


def test_a_process_that_got_the_pid_of_an_old_one_is_left_alone(sleeper, tmp_path):
    identity = identity_of(sleeper.pid)
    assert identity is not None
    former = Child(replace(identity, started="before the last boot"), tmp_path / "log")
    assert not former.is_alive()
    former.stop(signal.SIGTERM, 0)
    former.kill()
    assert sleeper.poll() is None


def test_a_pid_file_that_somebody_else_wrote_stops_nobody(sleeper, tmp_path):
    home = Home(tmp_path)
    home.pid_file("api").parent.mkdir()
    home.pid_file("api").write_text(str(sleeper.pid))
    assert home.recall("api") is None


def test_a_remembered_process_is_known_again_until_it_ends(tmp_path):
    home = Home(tmp_path)
    child = spawn(SLEEP, home.log("api"))
    home.remember("api", child)
    again = home.recall("api")
    assert again is not None
    assert again.is_alive()
    assert home.pid_file("api").read_text() == f"{child.pid}\n"
    child.stop(signal.SIGTERM, 5)
    assert not again.is_alive()


def test_remains_that_nobody_reaped_count_as_gone():
    process = subprocess.Popen(["true"])
    os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
    assert identity_of(process.pid) is None
    process.wait()


def test_who_does_not_listen_is_killed_after_the_deadline(tmp_path):
    child = spawn(DEAF, tmp_path / "log")
    wait_until(child, "deaf", lambda: last_lines(tmp_path / "log", 1) == ["deaf"], 10)
    child.stop(signal.SIGTERM, 0.1)
    assert not child.is_alive()
    assert child.popen is not None
    assert child.popen.returncode == -signal.SIGKILL


def test_a_death_during_the_start_is_told_with_its_last_words(tmp_path):
    child = spawn([sys.executable, "-c", "print('no such host\\n'); raise SystemExit(3)"], tmp_path / "log")
    with pytest.raises(
        DiedDuringStart, match=r"api ended during its start with exit code 3: no such host \("
    ) as caught:
        wait_until(child, "api", lambda: False, 10)
    assert "\n" not in str(caught.value)


def test_a_death_by_a_full_disk_says_so(tmp_path):
    words = "print('write failed: No space left on device'); print('giving up'); raise SystemExit(1)"
    child = spawn([sys.executable, "-c", words], tmp_path / "log")
    with pytest.raises(DiedDuringStart, match="the disk is full: giving up"):
        wait_until(child, "kafka", lambda: False, 10)


def test_who_is_not_healthy_in_time_is_told(tmp_path):
    child = spawn(SLEEP, tmp_path / "log")
    with pytest.raises(
        NotHealthyInTime, match="api is not healthy after 0 s; its log ends: nothing was logged"
    ):
        wait_until(child, "api", lambda: False, 0)
    child.kill()
