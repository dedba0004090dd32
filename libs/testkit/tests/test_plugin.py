"""The plugin as somebody meets it: a pytest run of its own, in a process of its own."""

import os
import subprocess
import sys
import tempfile
from collections.abc import Generator
from pathlib import Path
from uuid import uuid4

import pytest

from juinie_shared.db.pool import connect
from juinie_testkit import databases
from juinie_testkit.backing.session import claim_dead_sessions
from juinie_testkit.waits import eventually

USES_NOTHING = "def test_plain(): pass\n"
USES_POSTGRES = "def test_backed(database_url): assert database_url\n"
USES_BOTH = USES_POSTGRES + "def test_kafka(kafka_bootstrap_servers, kafka_topic): assert kafka_topic\n"
COUNTS_SERVERS = """
import os, pathlib
def test_nothing_was_started():
    assert not list(pathlib.Path(os.environ["JUINIE_TEST_SESSION"]).iterdir())
"""
NOT_OURS = ("TEST_", "JUINIE_", "PYTEST_", "DATABASE_URL", "KAFKA_")


class Runs:
    """Runs pytest on a file in an empty folder, with none of our own settings."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._processes: list[subprocess.Popen[str]] = []
        (folder / "pytest.ini").write_text(
            "[pytest]\nasyncio_mode = auto\nasyncio_default_fixture_loop_scope = function\nfilterwarnings = error\n"
        )
        (folder / "temporary").mkdir()

    def start(self, source: str, *arguments: str, **environment: str) -> subprocess.Popen[str]:
        (self.folder / "test_it.py").write_text(source)
        kept = {name: value for name, value in os.environ.items() if not name.startswith(NOT_OURS)}
        process = subprocess.Popen(
            [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", *arguments],
            cwd=self.folder, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
            env={**kept, "TMPDIR": str(self.folder / "temporary"), **environment},
        )  # fmt: skip
        self._processes.append(process)
        return process

    def end(self) -> None:
        for process in self._processes:
            process.kill()
            process.wait()
            if process.stdout:
                process.stdout.close()

    def __call__(self, source: str, *arguments: str, **environment: str) -> tuple[int, str]:
        """The exit code and the output."""
        process = self.start(source, *arguments, **environment)
        output, _ = process.communicate(timeout=100)
        return process.returncode, output

    @property
    def left_behind(self) -> list[str]:
        return [
            path.name for path in (self.folder / "temporary").iterdir() if path.name.startswith("juinie-")
        ]


@pytest.fixture
def run_pytest(tmp_path: Path) -> Generator[Runs]:
    runs = Runs(tmp_path)
    yield runs
    runs.end()


def test_tests_that_need_no_server_start_none(run_pytest: Runs):
    code, output = run_pytest(COUNTS_SERVERS + USES_NOTHING, JUINIE_TEST_BACKING="given")
    assert (code, "2 passed" in output) == (0, True), output
    assert run_pytest.left_behind == []


@pytest.mark.parametrize("workers", [(), ("-n", "2")], ids=["one process", "two workers"])
def test_without_any_server_the_run_fails_with_one_line_that_says_each_way_to_mend_it(
    run_pytest: Runs, workers: tuple[str, ...]
):
    code, output = run_pytest(USES_POSTGRES, *workers, JUINIE_TEST_BACKING="given")
    assert code not in {0, 1, 5}, output
    (line, *_) = [line for line in output.splitlines() if "No Postgres for these tests" in line]
    for way in (
        "TEST_DATABASE_URL is not set",
        "Set TEST_DATABASE_URL",
        "start Docker",
        "make install",
        "JUINIE_SKIP_BACKED_TESTS=1",
    ):
        assert way in line
    assert "Traceback" not in output
    assert "INTERNALERROR" not in output


def test_a_server_that_was_given_and_does_not_answer_is_told_and_not_replaced(run_pytest: Runs):
    url = "postgresql://nobody@127.0.0.1:1/none"
    code, output = run_pytest(USES_POSTGRES, JUINIE_TEST_BACKING="given", TEST_DATABASE_URL=url)
    assert code not in {0, 1, 5}, output
    assert "Postgres took no connection within" in output


def test_skipping_has_to_be_asked_for_and_leaves_the_others(run_pytest: Runs):
    asked = {"JUINIE_TEST_BACKING": "given", "JUINIE_SKIP_BACKED_TESTS": "1"}
    code, output = run_pytest(USES_BOTH + USES_NOTHING, "-rs", **asked)
    assert (code, "1 passed, 2 skipped" in output) == (0, True), output
    assert "JUINIE_SKIP_BACKED_TESTS=1: no postgres" in output


async def test_workers_share_one_template_and_leave_nothing_on_a_given_server(
    run_pytest: Runs, postgres_url: str, kafka_bootstrap_servers: str
):
    source = "import pytest\n" + "".join(
        f"def test_{number}(database_url, template_database): print(template_database, database_url)\n"
        for number in range(4)
    )
    code, output = run_pytest(
        source, "-n", "2", "-rP", JUINIE_TEST_BACKING="given",
        TEST_DATABASE_URL=postgres_url, TEST_KAFKA_BOOTSTRAP_SERVERS=kafka_bootstrap_servers,
    )  # fmt: skip
    assert (code, "4 passed" in output) == (0, True), output
    printed = [line.split() for line in output.splitlines() if line.startswith("juinie_test_")]
    assert (len({template for template, _ in printed}), len({url for _, url in printed})) == (1, 4)
    session = printed[0][0].removesuffix("_template")
    assert [name for name in await databases_on(postgres_url) if name.startswith(session)] == []


async def test_databases_of_a_killed_run_are_dropped_by_the_next(run_pytest: Runs, postgres_url: str):
    given = {"JUINIE_TEST_BACKING": "given", "TEST_DATABASE_URL": postgres_url}
    waits = "import time\ndef test_waits(database_url): time.sleep(600)\n"
    killed = run_pytest.start(waits, **given)

    async def ours() -> list[str]:
        return [
            name for name in await databases_on(postgres_url) if name.startswith(f"juinie_test_{killed.pid}_")
        ]

    async def both() -> bool:
        return len(await ours()) == 2

    await eventually(both, 60, "the killed run's template and clone")
    killed.kill()
    killed.communicate()
    assert run_pytest.left_behind != []
    code, output = run_pytest(USES_POSTGRES, **given)
    assert code == 0, output
    assert (await ours(), run_pytest.left_behind) == ([], [])


async def test_each_test_has_a_database_of_its_own_with_the_schema(
    database_url: str, empty_database_url: str
):
    counts = []
    for url in (database_url, empty_database_url):
        connection = await connect(url, "test")
        counts.append(await connection.fetchval("SELECT count(*) FROM pg_class WHERE relname = 'run_event'"))
        await connection.close()
    assert counts == [1, 0]


def test_session_of_a_dead_process_is_claimed_once_and_that_of_a_living_one_never(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    for name in (f"{os.getpid()}-abc", f"{dead.pid}-xyz", "notes"):
        (tmp_path / f"juinie-test-{name}").mkdir()
    assert [session.directory.name for session in claim_dead_sessions()] == [f"juinie-test-{os.getpid()}-xyz"]
    assert claim_dead_sessions() == []


def test_url_of_another_database_keeps_the_rest():
    name = f"n{uuid4().hex}"
    assert (
        databases.url_of("postgresql://u:p%40@h:5/x?sslmode=disable", name)
        == f"postgresql://u:p%40@h:5/{name}?sslmode=disable"
    )


async def databases_on(postgres_url: str) -> list[str]:
    connection = await connect(postgres_url, "test")
    try:
        return [row["datname"] for row in await connection.fetch("SELECT datname FROM pg_database")]
    finally:
        await connection.close()
