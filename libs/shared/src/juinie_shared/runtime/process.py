"""A service as a process: one event loop, SIGTERM and SIGINT as a request to stop, a second one as an order.

Faults of the setup end the process with one clear line and exit code 1.

With `JUINIE_PROCESSES` above 1 it is the parent of so many like it (`runtime/parent.py`), which share its port.
"""

import asyncio
import os
import resource
import signal
import sys
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import NoReturn, Protocol, cast

import uvloop

from juinie_shared.domain.errors import JuinieError, Misconfigured, Permanent, Transient
from juinie_shared.runtime.logs import configure_logs
from juinie_shared.runtime.parent import FORCED_EXIT, Parent
from juinie_shared.runtime.settings import ServiceSettings
from juinie_shared.runtime.sibling import Sibling


class Serve[S](Protocol):
    """`app.serve` of a service."""

    def __call__(
        self,
        settings: S,
        stopping: asyncio.Event,
        on_started: Callable[[int], None] = ...,
        sibling: Sibling | None = ...,
    ) -> Awaitable[None]: ...


def run_service[S: ServiceSettings](
    service: str, settings: S, port: int, load: Callable[[], Serve[S]]
) -> NoReturn:
    """Serve in this process, or in several that are its children, and exit.

    `load` imports the application: a parent needs none of it.
    """
    sibling = Sibling.from_environment()
    configure_logs(service, settings.log_level, settings.log_format, sibling.index if sibling else None)
    if sibling is None and settings.processes > 1:
        _run_parent(Parent(settings.host, port, settings.processes, settings.drain_seconds))
    if sibling is not None:
        sibling.die_with_parent()
    serve = load()
    if sibling is None:
        run_process(lambda stopping: serve(settings, stopping))
    run_process(lambda stopping: serve(settings, stopping, sibling.tell_started, sibling), sibling)


def run_process(
    serve: Callable[[asyncio.Event], Awaitable[None]], sibling: Sibling | None = None
) -> NoReturn:
    """Run `serve(stopping)` to its end, and exit. `stopping` is set by SIGTERM or SIGINT; a second signal exits at once."""
    allow_descriptors()
    try:
        uvloop.run(_until_stopped(serve, sibling))
    except* (Permanent, Transient) as group:
        _tell(_first(group), sibling)
        sys.exit(1)
    _leave()


def _tell(fault: BaseException, sibling: Sibling | None) -> None:
    """In the one line that a person at a terminal reads. For one of several its parent says it."""
    if sibling is None:
        print(fault, file=sys.stderr)  # noqa: T201
    elif isinstance(fault, Misconfigured):
        sibling.tell_wrong_setup(str(fault))
    else:
        sibling.tell_fault(str(fault))


def _run_parent(parent: Parent) -> NoReturn:
    allow_descriptors()
    try:
        code = parent.run()
    except JuinieError as error:
        sys.exit(error.message)
    except OSError as error:
        sys.exit(f"The processes cannot be kept: {error.strerror or error}.")
    sys.exit(code)


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


async def _until_stopped(serve: Callable[[asyncio.Event], Awaitable[None]], sibling: Sibling | None) -> None:
    stopping, signalled = asyncio.Event(), asyncio.Event()
    loop = asyncio.get_running_loop()

    def ask_to_stop() -> None:
        """The parent's word is no signal: a supervisor may send one to parent and children alike."""
        if signalled.is_set():
            os._exit(FORCED_EXIT)
        signalled.set()
        stopping.set()

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, ask_to_stop)
    if sibling is not None:
        sibling.watch_parent(stopping)
    await serve(stopping)


def _first(error: BaseException) -> BaseException:
    while isinstance(error, BaseExceptionGroup):
        error = cast("BaseExceptionGroup[BaseException]", error).exceptions[0]
    return error
