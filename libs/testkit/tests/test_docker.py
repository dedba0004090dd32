"""Machines that have Docker's client and no engine: the embedded servers are next, and nothing is left open."""

import gc
import warnings
from pathlib import Path

import pytest

from juinie_testkit.backing import docker
from juinie_testkit.backing.session import CannotHave


@pytest.fixture(params=["no socket", "nobody listens"])
def no_engine(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "docker.sock"
    if request.param == "nobody listens":
        path.touch()
    monkeypatch.setenv("DOCKER_HOST", f"unix://{path}")


@pytest.mark.usefixtures("no_engine")
def test_no_engine_is_told_and_leaves_no_socket_open() -> None:
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        with pytest.raises(CannotHave):
            docker.start_postgres()
        gc.collect()
    assert [str(warning.message) for warning in told if warning.category is ResourceWarning] == []


@pytest.mark.usefixtures("no_engine")
def test_container_whose_engine_is_gone_is_removed_in_peace() -> None:
    docker.remove_server({"kind": "docker", "container": "0"})
