"""A line that cannot be written ends nothing: a full disk, a pipe that nobody reads, a file that is closed."""

import asyncio
import io
import json
import subprocess
import sys
from typing import override

import pytest

from juinie_shared.runtime.logs import Writer

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


IN_A_LOOP = """
import asyncio, os
from juinie_shared.runtime.logs import configure_logs, get_logger

configure_logs("test", "info")
log = get_logger("test")

async def say(what):
    log.info(what)

async def main():
    async with asyncio.TaskGroup() as tasks:
        for number in range(3):
            tasks.create_task(say(f"gathered {number}"))
    log.info("before")
    log.warning("at once")
    {end}

asyncio.run(main())
"""


@pytest.mark.parametrize("end", ["os._exit(0)", "log.info('last')"])
def test_lines_of_a_loop_are_all_written_in_their_order(end: str) -> None:
    program = IN_A_LOOP.format_map({"end": end, "number": "{number}"})
    ended = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, check=True, timeout=60, text=True
    )
    said = [json.loads(line)["event"] for line in ended.stderr.splitlines()]
    assert said[:5] == ["gathered 0", "gathered 1", "gathered 2", "before", "at once"]
    assert said[5:] == ([] if "exit" in end else ["last"])


def test_lines_of_one_turn_are_one_write() -> None:
    class File(io.StringIO):
        writes = 0

        @override
        def write(self, text: str, /) -> int:
            self.writes += 1
            return super().write(text)

    async def main() -> None:
        for number in range(3):
            writer.gather(str(number))
        assert file.writes == 0

    file = File()
    writer = Writer(file)
    asyncio.run(main())
    assert (file.getvalue(), file.writes) == ("0\n1\n2\n", 1)
