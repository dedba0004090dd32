"""The pytest plugin: servers, a database a test, a topic a test. Nothing starts before a test asks for it.

database_url             a fresh, migrated database, dropped after the test
pool                     a `juinie_shared` pool on it
empty_database_url       a database without schema
kafka_bootstrap_servers  the session's Kafka
kafka_topic              a topic name of this test's own; nobody has created it
stoppable_kafka          a broker that this test may stop, kill and start again
make_pgbouncer           `make_pgbouncer("session")`: a real pgbouncer in front of the session's Postgres
make_nginx               `make_nginx(printed, api_port, gateway_port)`: a real nginx in front of two services
make_stack               `with make_stack(gateways=2) as stack`: service processes on a database and a topic of their own
make_clock               `make_clock("api")`: a wall clock for a process to have to itself
signing_keys             a value for JUINIE_STREAM_TOKEN_KEYS
"""

import os
from collections.abc import AsyncGenerator, Callable, Generator, Mapping
from contextlib import AbstractContextManager, contextmanager
from itertools import count
from typing import Any

import pytest
from hypothesis import HealthCheck, settings

from juinie_shared.db.pool import Pool, open_pool
from juinie_testkit import databases
from juinie_testkit.backing.choose import SKIP, Server, have, stop_all
from juinie_testkit.backing.embedded import leave_running
from juinie_testkit.backing.ready import run_aside
from juinie_testkit.backing.session import BackingSession, CannotHave, Note
from juinie_testkit.installed import InstalledProgram, NotInstalled
from juinie_testkit.kafka import delete_topics_of
from juinie_testkit.nginx import Nginx
from juinie_testkit.own_clock import OwnClock, remove_left_behind
from juinie_testkit.pgbouncer import PgBouncer, PoolMode
from juinie_testkit.stack import Stack
from juinie_testkit.stoppable import StoppableServer

# No example fails for being slow: on a busy machine, every one of them is.
settings.register_profile(
    "juinie", deadline=None, suppress_health_check=[HealthCheck.too_slow], print_blob=True
)
settings.load_profile("juinie")

SIGNING_KEYS = "test=juinie-testkit-signing-key-0123456789"
NO_SERVER = 3
"""Exit code of a run that could not have a server."""

type MakePgBouncer = Callable[..., PgBouncer]
type MakeNginx = Callable[..., Nginx]
type MakeStack = Callable[..., AbstractContextManager[Stack]]
type MakeClock = Callable[[str], OwnClock]

_SESSION = pytest.StashKey[BackingSession]()
_numbers = count(1)


def pytest_configure(config: pytest.Config) -> None:
    config.stash[_SESSION] = BackingSession.join_or_begin()


def pytest_unconfigure(config: pytest.Config) -> None:
    session = config.stash.get(_SESSION, None)
    if session and session.owned:
        _clean_given_servers(session)
        stop_all(session)
    else:
        leave_running()


@pytest.fixture(scope="session")
def backing_session(pytestconfig: pytest.Config) -> BackingSession:
    """The session whose servers these are."""
    return pytestconfig.stash[_SESSION]


@pytest.fixture(scope="session")
def postgres_url(request: pytest.FixtureRequest) -> str:
    """A Postgres server, as the URL of a database that tests leave alone."""
    return _have(request, "postgres")["url"]


@pytest.fixture(scope="session")
def template_database(
    request: pytest.FixtureRequest, backing_session: BackingSession, postgres_url: str
) -> str:
    """The name of the migrated database that tests' databases are copied from."""

    def make() -> Note:
        return {"name": run_aside(databases.make_template(postgres_url, backing_session.name))}

    return _or_end(request, "postgres", lambda: backing_session.once("template", make))["name"]


@pytest.fixture
def database_url(
    backing_session: BackingSession, postgres_url: str, template_database: str
) -> Generator[str]:
    """A database of this test's own, with the newest schema."""
    name = own_name(backing_session)
    yield run_aside(databases.clone(postgres_url, template_database, name))
    run_aside(databases.drop(postgres_url, name))


@pytest.fixture
def empty_database_url(backing_session: BackingSession, postgres_url: str) -> Generator[str]:
    """A database of this test's own, without any schema."""
    name = own_name(backing_session)
    yield run_aside(databases.make_empty(postgres_url, name))
    run_aside(databases.drop(postgres_url, name))


@pytest.fixture
async def pool(database_url: str) -> AsyncGenerator[Pool]:
    """A pool on `database_url`."""
    opened = await open_pool(database_url, "juinie-testkit")
    yield opened
    await opened.close()


@pytest.fixture(scope="session")
def kafka_bootstrap_servers(request: pytest.FixtureRequest) -> str:
    """A Kafka that answers. Tests share it: they may not stop it."""
    return _have(request, "kafka")["servers"]


@pytest.fixture
def kafka_topic(backing_session: BackingSession) -> str:
    """The name of a topic of this test's own."""
    return own_name(backing_session)


@pytest.fixture
def stoppable_kafka(request: pytest.FixtureRequest) -> Generator[StoppableServer]:
    """A Kafka of this worker's own, running when the test begins."""
    label = f"kafka_to_stop_{os.getpid()}"
    broker = StoppableServer(_have(request, "kafka", label, own=True))
    yield broker
    broker.start()


@pytest.fixture
def make_pgbouncer(postgres_url: str, tmp_path_factory: pytest.TempPathFactory) -> Generator[MakePgBouncer]:
    """Starts a pgbouncer in front of the session's Postgres: `make_pgbouncer("transaction", default_pool_size=1)`."""
    made: list[PgBouncer] = []

    def make(pool_mode: PoolMode, **settings: object) -> PgBouncer:
        made.append(PgBouncer(tmp_path_factory.mktemp("pgbouncer"), postgres_url, pool_mode, **settings))
        _start_or_fail(made[-1])
        return made[-1]

    yield make
    for pgbouncer in made:
        pgbouncer.end()


@pytest.fixture
def make_nginx(tmp_path_factory: pytest.TempPathFactory) -> Generator[MakeNginx]:
    """Starts an nginx with a printed configuration: `make_nginx(printed, api_port, gateway_port, more="gzip on;")`."""
    made: list[Nginx] = []

    def make(printed: str, api_port: int, gateway_port: int, more: str = "") -> Nginx:
        made.append(Nginx(tmp_path_factory.mktemp("nginx"), printed, api_port, gateway_port, more))
        _start_or_fail(made[-1])
        return made[-1]

    yield make
    for nginx in made:
        nginx.end()


@pytest.fixture(scope="session")
def make_clock(tmp_path_factory: pytest.TempPathFactory) -> Generator[MakeClock]:
    """Makes a clock that goes right until it is set: `make_clock("api").environment` is for the process that shall have it."""
    directory = tmp_path_factory.mktemp("clocks")

    def make(name: str) -> OwnClock:
        return _installed(lambda: OwnClock(directory / f"{name}.clock"))

    yield make
    remove_left_behind()


@pytest.fixture(scope="session")
def make_stack(
    backing_session: BackingSession,
    postgres_url: str,
    template_database: str,
    kafka_bootstrap_servers: str,
    tmp_path_factory: pytest.TempPathFactory,
) -> MakeStack:
    """Makes service processes on a database and a topic of their own, which have yet to be started: `with make_stack(gateways=2) as stack`.

    `environment` is added to keys that sign; the rest is `Stack`'s.
    """

    @contextmanager
    def make(environment: Mapping[str, str] | None = None, **choices: Any) -> Generator[Stack]:
        name = own_name(backing_session)
        database_url = run_aside(databases.clone(postgres_url, template_database, name))
        settings = {"JUINIE_STREAM_TOKEN_KEYS": SIGNING_KEYS, **(environment or {})}
        directory = tmp_path_factory.mktemp("stack")
        stack = Stack(database_url, kafka_bootstrap_servers, name, directory, environment=settings, **choices)
        try:
            yield stack
        finally:
            stack.end()
            run_aside(databases.drop(postgres_url, name))

    return make


@pytest.fixture
def signing_keys() -> str:
    """A value for JUINIE_STREAM_TOKEN_KEYS."""
    return SIGNING_KEYS


def own_name(session: BackingSession) -> str:
    """A name for a database or a topic that nobody else has, and that is known as ours."""
    return f"{session.name}_{os.getpid()}_{next(_numbers)}"


def _have(
    request: pytest.FixtureRequest, server: Server, label: str | None = None, own: bool = False
) -> Note:
    return _or_end(request, server, lambda: have(request.config.stash[_SESSION], server, label, own))


def _or_end(request: pytest.FixtureRequest, server: Server, get: Callable[[], Note]) -> Note:
    """What `get` gives; where it cannot be had, the test is skipped if that was asked for, else the run ends."""
    try:
        return get()
    except CannotHave as error:
        if os.environ.get(SKIP) == "1":
            pytest.skip(f"{SKIP}=1: no {server}")
        if "PYTEST_XDIST_WORKER" in os.environ:  # a worker cannot end the run; it tells the controller to
            request.session.shouldfail = str(error)
            pytest.fail(str(error), pytrace=False)
        pytest.exit(str(error), returncode=NO_SERVER)


def _start_or_fail(program: InstalledProgram) -> None:
    _installed(program.start)


def _installed[T](get: Callable[[], T]) -> T:
    """What `get` gives; where what it needs is not installed, the test is skipped if that was asked for, else it fails."""
    try:
        return get()
    except NotInstalled as error:
        if os.environ.get(error.skip) == "1":
            pytest.skip(f"{error.skip}=1: no {error.program}")
        pytest.fail(str(error), pytrace=False)


def _clean_given_servers(session: BackingSession) -> None:
    """A server that was there before us keeps nothing of ours."""
    notes = session.notes()
    postgres, kafka = notes.get("postgres", {}), notes.get("kafka", {})
    if postgres.get("kind") == "given":
        run_aside(databases.drop_all_of(postgres["url"], session.name))
    if kafka.get("kind") == "given":
        run_aside(delete_topics_of(kafka["servers"], session.name))
