"""Ports, paths and users: what is found, and what is told."""

import multiprocessing
import socket
import subprocess
import sys
from concurrent.futures import ProcessPoolExecutor

import pytest

from juinie_standalone import users
from juinie_standalone.children import User
from juinie_standalone.errors import PortTaken, StandaloneError
from juinie_standalone.home import Home
from juinie_standalone.plan import load, plan_of_environment, save
from juinie_standalone.ports import free_ports, is_free, require_free
from juinie_standalone.servers.remembered import remembered_ports


@pytest.fixture
def taken_port():
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server.getsockname()[1]


def test_a_taken_port_names_its_owner_and_the_setting(taken_port):
    with pytest.raises(PortTaken) as caught:
        require_free(taken_port, "the API", "JUINIE_API_PORT")
    told = str(caught.value)
    assert f"Port {taken_port}" in told
    assert "(pid " in told
    assert "JUINIE_API_PORT" in told
    assert "\n" not in told


def test_chosen_ports_are_kept_and_chosen_anew_when_one_is_taken(tmp_path, taken_port):
    file = tmp_path / "ports"
    ports = remembered_ports(file, 2)
    assert remembered_ports(file, 2) == ports
    file.write_text(f"{ports[0]} {taken_port}")
    assert taken_port not in remembered_ports(file, 2)


def test_free_ports_are_free_and_differ():
    ports = free_ports(5)
    assert len(set(ports)) == 5
    assert all(is_free(port) for port in ports)


def test_ports_are_not_given_out_twice_though_nobody_listens_yet():
    with ProcessPoolExecutor(3, multiprocessing.get_context("spawn")) as others:
        given = [port for ports in others.map(free_ports, [50] * 20) for port in ports]

    assert len(set(given)) == len(given) == 1_000


def test_the_env_file_can_be_sourced_and_exports_all(tmp_path):
    home = Home(tmp_path)
    home.write_env(
        {"JUINIE_API_URL": "http://127.0.0.1:8000", "JUINIE_DATABASE_URL": "postgresql://h/d?a=1&b='2'"}
    )
    script = (
        f". {home.env_file}; exec {sys.executable} -c \"import os; print(os.environ['JUINIE_DATABASE_URL'])\""
    )
    said = subprocess.run(["sh", "-c", script], check=True, capture_output=True, text=True).stdout
    assert said.strip() == "postgresql://h/d?a=1&b='2'"
    assert home.env_file.stat().st_mode & 0o077 == 0


def test_a_plan_comes_back_as_it_was(tmp_path):
    plan = plan_of_environment({"JUINIE_API_PORT": "9000"}).with_kafka("127.0.0.1:9092", 9092)
    save(plan, Home(tmp_path))
    assert load(Home(tmp_path)) == plan
    assert plan.own_kafka


@pytest.mark.parametrize("text", ["eighty", "-1", "65536", "8e3"])
def test_a_port_that_is_none_is_told(text):
    with pytest.raises(StandaloneError, match="JUINIE_API_PORT is not a port"):
        plan_of_environment({"JUINIE_API_PORT": text})


def test_a_closed_directory_above_is_noticed(tmp_path):
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o700)
    stranger = User(uid=54321, gid=54321)
    assert not users._reachable(closed / "data", stranger)
    owner = User(uid=closed.stat().st_uid, gid=closed.stat().st_gid)
    assert users._may_search(closed.stat(), owner)
