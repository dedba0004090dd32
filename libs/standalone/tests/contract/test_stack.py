"""`make up` and its sisters, as processes, with real servers: what is started, mended, told and left behind."""

import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import pytest

from juinie_standalone.children import identity_of

NAMES = {"postgres", "kafka", "api", "publisher", "stream-gateway"}


@pytest.fixture
def given():
    """Servers that somebody else runs: here, something that accepts connections."""
    with socket.create_server(("127.0.0.1", 0)) as one, socket.create_server(("127.0.0.1", 0)) as other:
        yield {
            "DATABASE_URL": f"postgresql://juinie@127.0.0.1:{one.getsockname()[1]}/juinie",
            "KAFKA_BOOTSTRAP_SERVERS": f"127.0.0.1:{other.getsockname()[1]}",
        }


def await_pids(terminal, names, seconds=60):
    deadline = time.monotonic() + seconds
    while set(terminal.pids()) != names:
        assert time.monotonic() < deadline, f"only {set(terminal.pids())} of {names} were started"
        time.sleep(0.02)


def read_env(terminal):
    script = f". {terminal.home / 'env'} && exec {sys.executable} -c 'import os; print(dict(os.environ))'"
    said = subprocess.run(["sh", "-c", script], check=True, capture_output=True, text=True).stdout
    return {name: value for name, value in eval(said).items() if name.startswith("JUINIE_")}


def test_the_stack_comes_up_is_mended_restarted_and_goes_without_a_trace(terminal):
    said = terminal.ok("up")
    assert "jn_dev_local_only" in said
    pids = terminal.pids()
    assert set(pids) == NAMES
    assert all(identity_of(pid) for pid in pids.values())
    env = read_env(terminal)
    assert env["JUINIE_API_URL"] in said
    assert env["JUINIE_STREAM_URL"] in said
    assert env["JUINIE_DATABASE_URL"].startswith("postgresql://")
    assert urllib.request.urlopen(env["JUINIE_API_URL"]).status == 200
    assert terminal.ok("status").count("healthy") == 5
    assert (
        terminal.ok("key", "--tenant", "other", "--scopes", "read,write")
        == "jn_tenant-other-scopes-read,write\n"
    )
    assert "up already" in terminal.ok("up")
    assert terminal.pids() == pids

    os.kill(pids["api"], signal.SIGKILL)
    os.kill(pids["postgres"], signal.SIGKILL)
    assert terminal.run("status").stdout.count("dead") == 2
    terminal.ok("restart", "postgres")
    mended = terminal.run("up")
    assert "api had died" in mended.stderr
    assert "up." in mended.stdout
    terminal.ok("restart", "publisher")
    changed = terminal.pids()
    assert {name for name in NAMES if changed[name] != pids[name]} == {"postgres", "api", "publisher"}
    assert read_env(terminal) == env

    terminal.ok("down")
    assert not any(identity_of(pid) for pid in [*pids.values(), *changed.values()])
    assert terminal.pids() == {}
    assert not (terminal.home / "env").exists()
    assert terminal.run("status").returncode == 1
    assert "Juinie is down" in terminal.fails("restart", "api")


def test_a_taken_port_is_told_before_anything_starts(terminal):
    with socket.create_server(("127.0.0.1", int(terminal.environment["JUINIE_STREAM_PORT"]))):
        line = terminal.fails("up")
    assert f"Port {terminal.environment['JUINIE_STREAM_PORT']}" in line
    assert f"(pid {os.getpid()})" in line
    assert not (terminal.home / "data").exists()


def test_a_service_that_dies_during_the_start_takes_the_rest_down_with_it(terminal):
    terminal.replace_service("juinie_publisher", "print('no such broker'); raise SystemExit(3)")
    line = terminal.fails("up")
    assert "publisher ended during its start with exit code 3: no such broker" in line
    assert terminal.pids() == {}
    assert str(terminal.home) not in "".join(_command_lines())


def test_a_failed_migration_is_told_with_its_last_words(terminal, given):
    terminal.replace_service("juinie_api", "print('schema is from the future'); raise SystemExit(1)")
    assert "The migrations failed: schema is from the future" in terminal.fails("up", **given)
    assert terminal.pids() == {}


def test_servers_that_are_given_are_used_and_not_stopped(terminal, given):
    said = terminal.run("up", **given).stderr
    assert "using what DATABASE_URL names" in said
    assert "using what KAFKA_BOOTSTRAP_SERVERS names" in said
    assert set(terminal.pids()) == NAMES - {"postgres", "kafka"}
    assert read_env(terminal)["JUINIE_DATABASE_URL"] == given["DATABASE_URL"]
    terminal.ok("restart", "api")
    assert "There is no kafka to restart here" in terminal.fails("restart", "kafka")
    terminal.ok("down")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_start_that_is_called_off_leaves_nothing_running(terminal, given, number):
    terminal.replace_service("juinie_publisher", "import time; time.sleep(300)")
    command = [sys.executable, "-m", "juinie_standalone", "up"]
    environment = terminal.environment | given
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as up:
        await_pids(terminal, {"api", "publisher", "stream-gateway"})
        pids = terminal.pids()
        up.send_signal(number)
        assert up.wait(60) != 0
    assert terminal.pids() == {}
    assert not any(identity_of(pid) for pid in pids.values())


def test_what_a_killed_start_left_is_cleared_by_the_next(terminal, given):
    terminal.ok("up", **given)
    pids = terminal.pids()
    (terminal.home / "state" / "plan.json").unlink()
    terminal.ok("up", **given)
    assert not any(identity_of(pid) for pid in pids.values())
    assert set(terminal.pids()) == set(pids)


def test_servers_that_are_given_have_to_be_there(terminal):
    line = terminal.fails("up", DATABASE_URL="postgresql://juinie@127.0.0.1:1/juinie")
    assert "Nobody answers at 127.0.0.1:1, which DATABASE_URL names" in line


@pytest.mark.parametrize("limit_bytes", [10, 2_000_000])
def test_a_disk_without_room_is_told_and_nothing_is_left_running(terminal, limit_bytes):
    """A limit on the size of files stands in for a small disk: the same refusals, for any user."""
    limited = (
        "import resource, runpy, signal;"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN);"
        f"resource.setrlimit(resource.RLIMIT_FSIZE, ({limit_bytes}, {limit_bytes}));"
        "runpy.run_module('juinie_standalone', run_name='__main__', alter_sys=True)"
    )
    done = subprocess.run(
        [sys.executable, "-c", limited, "up"],
        check=False,
        capture_output=True,
        text=True,
        env=terminal.environment,
    )
    assert done.returncode != 0
    assert "juinie: The disk is full" in done.stderr
    assert "Traceback" not in done.stderr
    assert terminal.pids() == {}
    assert str(terminal.home) not in "".join(_command_lines())


def _command_lines():
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            yield path.read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except OSError:
            continue
