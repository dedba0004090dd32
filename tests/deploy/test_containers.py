"""What the compose file and the image say of themselves: nobody's user, a file system that is only read, nothing published.

`make compose-smoke` looks into the running containers; this needs no Docker.
"""

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[2]
SERVICES: dict[str, dict[str, Any]] = yaml.safe_load((ROOT / "docker-compose.yml").read_text())["services"]
OURS = [name for name, service in SERVICES.items() if service.get("image") == "juinie:dev"]


def test_all_of_our_services_are_looked_at():
    assert sorted(OURS) == ["api", "migrate", "publisher", "stream-gateway"]


@pytest.mark.parametrize("name", OURS)
def test_container_is_confined(name: str):
    service = SERVICES[name]
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert not {"privileged", "cap_add", "user", "volumes"} & service.keys()


@pytest.mark.parametrize("name", SERVICES)
def test_every_port_is_on_this_machine_alone(name: str):
    assert [port for port in SERVICES[name].get("ports", ()) if not port.startswith("127.0.0.1:")] == []


def test_image_ends_as_a_user_who_is_not_root():
    last_stage = (ROOT / "deploy/docker/Dockerfile").read_text().rpartition("\nFROM ")[2]
    users = re.findall(r"^USER (.+)$", last_stage, re.MULTILINE)
    assert users == ["10001:10001"]
    assert not re.search(r"^(ADD|RUN .*(curl|wget))\b", last_stage, re.MULTILINE)


def test_image_holds_the_bytecode_of_all_that_it_runs():
    """Its file system is only read: what is not compiled is compiled at each start, which then takes twice as long."""
    stages = (ROOT / "deploy/docker/Dockerfile").read_text().split("\nFROM ")
    installs = re.findall(r"uv pip install .*--python /opt/juinie\b.*", stages[-2])
    assert [line for line in installs if "--compile-bytecode" not in line] == []
    assert re.search(r"^RUN python -m compileall .*stdlib", stages[-1], re.MULTILINE)
