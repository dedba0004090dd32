"""A service as a process: one event loop, SIGTERM and SIGINT as a request to stop, a second one as an order.

Faults of the setup end the process with one clear line and exit code 1.
"""

import asyncio
import os
import resource
import signal
import sys
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import NoReturn, cast

import uvloop

from juinie_shared.domain.errors import Permanent, Transient

FORCED_EXIT = 130


def run_process(serve: Callable[[asyncio.Event], Awaitable[None]]) -> None:
    """Run `serve(stopping)` to its end, and exit. `stopping` is set by SIGTERM or SIGINT; a second signal exits at once."""
    allow_descriptors()
    try:
        uvloop.run(_until_stopped(serve))
    except* (Permanent, Transient) as group:
        print(_first(group), file=sys.stderr)  # noqa: T201 - the one line that a person at a terminal reads
        sys.exit(1)
    _leave()


def _leave() -> NoReturn:
    """Exit without the interpreter's tidying: all is closed, and it costs half a second of a processor that is busy."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)


def allow_descriptors() -> None:
    """Take as many descriptors as we may have: the usual 1,024 are used up by as many connections."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    with suppress(OSError, ValueError):  # where the system gives less than it says
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


async def _until_stopped(serve: Callable[[asyncio.Event], Awaitable[None]]) -> None:
    stopping = asyncio.Event()
    loop = asyncio.get_running_loop()

    def ask_to_stop() -> None:
        if stopping.is_set():
            os._exit(FORCED_EXIT)
        stopping.set()

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, ask_to_stop)
    await serve(stopping)


def _first(error: BaseException) -> BaseException:
    while isinstance(error, BaseExceptionGroup):
        error = cast("BaseExceptionGroup[BaseException]", error).exceptions[0]
    return error
