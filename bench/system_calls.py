"""What a process asks of the kernel while it is traced: `tracer.py` looks at each call, which slows it, and changes nothing else."""

import asyncio
import contextlib
import json
import platform
import signal
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Self

_POLLS = {
    "x86_64": {7, 23, 232, 270, 271, 281, 441},
    "aarch64": {22, 72, 73, 441},
}
"""The numbers of poll, select, epoll_wait and their variants."""


class NotTraced(OSError):
    """The kernel does not let us trace a process of our own."""


class SystemCalls:
    """Use as `async with`; then `total` and `polls` say how many there were of it all in between.

    Raises:
        NotTraced
    """

    def __init__(self, pid: int) -> None:
        self._pid = pid
        self.by_number: Mapping[int, int] = {}

    @property
    def total(self) -> int:
        return sum(self.by_number.values())

    @property
    def polls(self) -> int:
        """How often it asked what there is to do, and maybe waited for it."""
        return sum(self.by_number.get(number, 0) for number in _POLLS.get(platform.machine(), ()))

    async def __aenter__(self) -> Self:
        tracer = Path(__file__).with_name("tracer.py")
        self._tracer = await asyncio.create_subprocess_exec(
            sys.executable, "-IS", tracer, str(self._pid), stdout=asyncio.subprocess.PIPE
        )
        said = await self._output().readline()
        if said != b"traced\n":
            await self._tracer.wait()
            raise NotTraced(said.decode().strip())
        return self

    async def __aexit__(self, *_: object) -> None:
        with contextlib.suppress(ProcessLookupError):
            self._tracer.send_signal(signal.SIGTERM)
        told = json.loads(await self._output().read())
        await self._tracer.wait()
        self.by_number = {int(number): times for number, times in told.items()}

    def _output(self) -> asyncio.StreamReader:
        assert self._tracer.stdout is not None
        return self._tracer.stdout
