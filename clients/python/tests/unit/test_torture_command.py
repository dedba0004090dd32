"""What `juinie torture` refuses before it does anything."""

import pytest
from typer.testing import CliRunner

from juinie.cli import app

HERE = "http://127.0.0.1:1"


def run(*arguments: str, api: str = HERE, stream: str = HERE) -> tuple[int, str]:
    command = ["torture", "--api-url", api, "--stream-url", stream, "--api-key", "jn_x", *arguments]
    result = CliRunner().invoke(app, command)
    return result.exit_code, result.output


@pytest.mark.parametrize("url", ["https://juinie.example", "http://10.0.0.7:8000", "http://127.example:80"])
def test_deployment_elsewhere_is_not_tortured_unasked(url: str) -> None:
    for addresses in ({"api": url}, {"stream": url}):
        code, printed = run(**addresses)

        assert (code, "--yes-this-deployment" in printed) == (2, True)


@pytest.mark.parametrize("pair", ["kill", "=kill", "kill="])
def test_fault_without_name_or_command_is_refused(pair: str) -> None:
    code, printed = run("--fault", pair)

    assert (code, "NAME=COMMAND" in printed) == (2, True)
