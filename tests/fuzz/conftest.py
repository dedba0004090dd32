"""One stack of real processes that all the fuzzers knock at.

`JUINIE_FUZZ_CASES` and `JUINIE_FUZZ_SEED` say how many cases there are in all, and which: `make fuzz CASES=… SEED=…`.
"""

import os
from collections.abc import Generator
from dataclasses import dataclass

import pytest

from juinie_shared.db.pool import open_pool
from juinie_testkit.backing.ready import run_aside
from juinie_testkit.plugin import MakeStack
from juinie_testkit.seed import Seed, SeededKey
from juinie_testkit.stack import Stack

SHARES = {
    "bytes at the api": 0.55,
    "bytes at the gateway": 0.3,
    "openapi": 0.1,
    "positions": 0.1,
    "filters": 0.03,
    "frames": 0.02,
}
"""Of all cases, by what is fuzzed. More than 1 together: how many schemathesis makes is up to it."""


@dataclass(frozen=True, slots=True)
class Plan:
    """How much is fuzzed, and from which seed."""

    cases: int
    seed: int

    def cases_of(self, what: str) -> int:
        return max(10, int(self.cases * SHARES[what]))


@pytest.fixture(scope="session")
def plan() -> Plan:
    return Plan(
        int(os.environ.get("JUINIE_FUZZ_CASES", "1500")), int(os.environ.get("JUINIE_FUZZ_SEED", "1"))
    )


@pytest.fixture(scope="session")
def stack(make_stack: MakeStack) -> Generator[Stack]:
    """One of each service, in the state in which the fuzzer before left it."""
    with make_stack(environment={"JUINIE_LOG_LEVEL": "warning"}) as made:
        run_aside(made.start())
        yield made


@pytest.fixture(scope="session")
def key(stack: Stack) -> SeededKey:
    """A key that may do everything, so that little is refused before it is read."""

    async def make() -> SeededKey:
        pool = await open_pool(stack.database_url, "test")
        try:
            return await Seed(pool).key()
        finally:
            await pool.close()

    return run_aside(make())


@pytest.fixture(autouse=True)
def whole(stack: Stack) -> Generator[None]:
    """No service has ended, whatever came. Its log is shown where a test fails."""
    before = {service.name: service.pid for service in stack.services}
    yield
    print(stack.logs())
    assert {service.name: service.pid for service in stack.services if service.running} == before
