"""One stack of real processes for all tests of a worker; each test leaves it as whole as it found it."""

from collections.abc import AsyncGenerator, Generator
from uuid import uuid4

import pytest

from juinie_shared.db.pool import Pool, open_pool
from juinie_testkit.client import ApiClient
from juinie_testkit.otlp import OtlpReceiver
from juinie_testkit.plugin import MakeStack
from juinie_testkit.seed import Seed, SeededKey
from juinie_testkit.stack import Stack


@pytest.fixture(scope="session")
def spans() -> Generator[OtlpReceiver]:
    """Where every service of the stack sends its spans."""
    with OtlpReceiver() as receiver:
        yield receiver


@pytest.fixture(scope="session")
def whole_stack(make_stack: MakeStack, spans: OtlpReceiver) -> Generator[Stack]:
    """api, publisher and two gateways on a database and a topic of their own."""
    with make_stack(gateways=2, environment=spans.environment) as made:
        yield made


@pytest.fixture
async def stack(whole_stack: Stack) -> AsyncGenerator[Stack]:
    """The stack, with every service running when the test begins. A failing test shows its logs."""
    await whole_stack.start()
    yield whole_stack
    print(whole_stack.logs())  # pytest shows it where the test failed


@pytest.fixture
async def stack_pool(stack: Stack) -> AsyncGenerator[Pool]:
    """The stack's database, to look at."""
    pool = await open_pool(stack.database_url, "test")
    yield pool
    await pool.close()


@pytest.fixture
async def key(stack_pool: Pool) -> SeededKey:
    """A key of a tenant of this test's own, which may do everything."""
    return await Seed(stack_pool).key(tenant=f"tenant-{uuid4()}")


@pytest.fixture
async def api(stack: Stack, key: SeededKey) -> AsyncGenerator[ApiClient]:
    async with ApiClient(stack.api.url, key.text) as client:
        yield client
