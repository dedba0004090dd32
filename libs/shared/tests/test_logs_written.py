"""A line that cannot be written ends nothing: a full disk, a pipe that nobody reads, a file that is closed."""

import subprocess
import sys

import pytest

LOGS = """
from juinie_shared.runtime.logs import configure_logs, get_logger
configure_logs("test", "info", {form!r})
log = get_logger("test")
for level in (log.debug, log.info, log.warning, log.error, log.critical):
    level("said", number=1)
print("went on")
"""


@pytest.mark.parametrize("form", ["json", "console"])
def test_full_disk_ends_no_service(form: str) -> None:
    with open("/dev/full", "w") as full:  # noqa: PTH123 - no path: a device
        ended = subprocess.run(
            [sys.executable, "-c", LOGS.format(form=form)], stderr=full, stdout=subprocess.PIPE, check=False, timeout=60
        )  # fmt: skip
    assert ended.stdout == b"went on\n"


def test_lines_are_written_one_by_one() -> None:
    ended = subprocess.run(
        [sys.executable, "-c", LOGS.format(form="json")],
        capture_output=True,
        check=True,
        timeout=60,
        text=True,
    )
    lines = ended.stderr.splitlines()
    assert len(lines) == 4
    assert all('"event":"said"' in line and '"service":"test"' in line for line in lines)
