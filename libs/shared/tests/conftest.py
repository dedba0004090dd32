"""Which loop a test runs on."""

import asyncio
from collections.abc import Callable, Mapping

import pytest
import uvloop


def pytest_asyncio_loop_factories(item: pytest.Item) -> Mapping[str, Callable[[], asyncio.AbstractEventLoop]]:
    """A crowd comes on asyncio's, and on the services' own, which begins to read, and stops, in its own way."""
    both = {"asyncio": asyncio.new_event_loop, "uvloop": uvloop.new_event_loop}
    comes = {"crowd", "doorstep"} & {*getattr(item, "fixturenames", ())}
    return both if comes else {"asyncio": asyncio.new_event_loop}
