"""Programs of peers: what is not here is said, what is there already is not fetched again, and what runs ends with us."""

import os
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest

from juinie_standalone.errors import StandaloneError


@pytest.fixture
def programs(bench_module: Callable[[str], ModuleType]) -> ModuleType:
    return bench_module("peer_programs")


def test_a_venv_with_the_same_pins_is_left_as_it_is(programs: ModuleType, tmp_path: Path):
    pins, venv = tmp_path / "peer.txt", tmp_path / "kept" / "peer"
    pins.write_text("one==1\n")
    venv.mkdir(parents=True)
    (venv / "pins").write_text("one==1\n")
    assert programs.python_of(pins, tmp_path / "kept") == venv / "bin" / "python"


def test_a_program_is_built_once(programs: ModuleType, tmp_path: Path):
    program = tmp_path / "peer-v1.2.3" / "peer"
    program.parent.mkdir()
    program.touch()
    assert programs.go_program("peer", "example.com/peer/v1", "v1.2.3", tmp_path) == program


def test_without_go_it_is_said(programs: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(programs.Missing, match="peer is built here, and there is no Go"):
        programs.go_program("peer", "example.com/peer", "v1.2.3", tmp_path)


def test_what_could_not_be_fetched_is_said_with_the_tools_own_words(
    programs: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    go = tmp_path / "go"
    go.write_text("#!/bin/sh\necho 'no such version' >&2\nexit 1\n")
    go.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    with pytest.raises(programs.Missing, match=r"(?s)peer could not be had.*no such version"):
        programs.go_program("peer", "example.com/peer", "v1.2.3", tmp_path)


def test_a_program_is_the_one_that_is_named(programs: ModuleType):
    assert programs.given_program("peer", Path(sys.executable)) == Path(sys.executable)
    with pytest.raises(programs.Missing, match="--no-such-peer"):
        programs.given_program("no-such-peer", None)


def test_a_process_ends_with_the_block_that_it_runs_in(programs: ModuleType, tmp_path: Path):
    log = tmp_path / "log"
    command = [sys.executable, "-c", "print('ready', flush=True); __import__('signal').pause()"]
    with programs.running(
        "peer", command, log, {}, lambda: log.exists() and "ready" in log.read_text()
    ) as child:
        assert child.is_alive()
    assert not child.is_alive()


def test_a_process_that_ends_before_it_is_ready_is_told_with_its_last_words(
    programs: ModuleType, tmp_path: Path
):
    command = [sys.executable, "-c", "raise SystemExit('no such setting')"]
    with (
        pytest.raises(StandaloneError, match="no such setting"),
        programs.running("peer", command, tmp_path / "log", {}, lambda: False),
    ):
        raise AssertionError
