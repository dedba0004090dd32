"""Services of several processes: one port, one answer, and nothing left of them at the end."""

import asyncio
import os
import signal
import socket
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import httpx
import orjson
import pytest
from prometheus_client.parser import text_string_to_metric_families

from juinie_shared.db.keys import ensure_dev_key
from juinie_shared.db.pool import Pool
from juinie_testkit.any_service import AnyService
from juinie_testkit.family import children_of, is_there
from juinie_testkit.plain_http import NO_TLS
from juinie_testkit.stack import START_SECONDS, ServiceProcess
from juinie_testkit.waits import eventually

STOP_SECONDS = 30
CONNECTIONS = 40
ASK_SECONDS = 2.0
"""A connection may come to a process that does not answer; then another is made."""

pytestmark = pytest.mark.timeout(300)


@pytest.fixture
def servers(database_url: str, kafka_bootstrap_servers: str, kafka_topic: str) -> dict[str, str]:
    return {
        "DATABASE_URL": database_url,
        "KAFKA_BOOTSTRAP_SERVERS": kafka_bootstrap_servers,
        "JUINIE_KAFKA_TOPIC": kafka_topic,
        "JUINIE_KAFKA_PARTITIONS": "1",
        "JUINIE_PROCESSES": "2",
    }


@asynccontextmanager
async def launched(process: ServiceProcess) -> AsyncGenerator[ServiceProcess]:
    process.launch()
    try:
        yield process
    finally:
        for child in children_of(process.pid):
            with suppress(ProcessLookupError):
                os.kill(child, signal.SIGCONT)
        await asyncio.to_thread(process.end)


async def ask(process: ServiceProcess, path: str) -> httpx.Response | None:
    """Over a connection of its own, so that each process is asked in its turn."""
    with suppress(httpx.TransportError):
        async with httpx.AsyncClient(verify=NO_TLS, trust_env=False, timeout=ASK_SECONDS) as client:
            return await client.get(f"{process.url}{path}")


async def until_answer(process: ServiceProcess, path: str, status: int, text: str = "") -> httpx.Response:
    async def answered() -> httpx.Response | None:
        answer = await ask(process, path)
        return answer if answer is not None and answer.status_code == status and text in answer.text else None

    what = f"{path} of {process.name} gives {status} {text}"
    return await eventually(answered, START_SECONDS, what)


async def until_gone(pids: set[int]) -> None:
    await eventually(lambda: not any(map(is_there, pids)), STOP_SECONDS, "no process is left")


def log_lines(process: ServiceProcess) -> list[dict[str, object]]:
    return [orjson.loads(line) for line in process.log.read_bytes().splitlines() if line.startswith(b"{")]


async def metrics_of_both(process: ServiceProcess) -> str | None:
    """None, where one that was too slow to answer is left out."""
    text = (await until_answer(process, "/metrics", 200)).text
    return text if all(f'process="{number}"' in text for number in range(2)) else None


async def test_processes_serve_on_one_port_and_each_answers_for_all(
    service: AnyService, tmp_path: Path, servers: dict[str, str]
):
    async with launched(service.process(tmp_path, **servers)) as process:
        await process.until_ready()
        children = children_of(process.pid)
        assert len(children) == 2
        text = await eventually(lambda: metrics_of_both(process), START_SECONDS, "both to answer in time")
        told = [line.split()[2] for line in text.splitlines() if line.startswith("# TYPE")]
        assert len(told) == len(set(told)) > 10
        for family in text_string_to_metric_families(text):
            assert {sample.labels["process"] for sample in family.samples} in ({"0", "1"}, set())
        assert await process.stop(STOP_SECONDS) == 0, process.tail()
    await until_gone(children)
    assert {line.get("process") for line in log_lines(process)} == {0, 1}


async def test_one_process_is_alone_and_says_nothing_of_processes(
    service: AnyService, tmp_path: Path, servers: dict[str, str]
):
    async with launched(service.process(tmp_path, **servers | {"JUINIE_PROCESSES": "1"})) as process:
        await process.until_ready()
        assert children_of(process.pid) == set()
        assert "process=" not in (await until_answer(process, "/metrics", 200)).text
        assert await process.stop(STOP_SECONDS) == 0
    assert not any("process" in line for line in log_lines(process))


async def test_option_goes_before_the_setting(service: AnyService, tmp_path: Path):
    process = service.process(tmp_path, "serve", "--processes", "3", JUINIE_PROCESSES="1")
    async with launched(process):
        await until_answer(process, "/livez", 200)
        assert len(children_of(process.pid)) == 3


async def test_service_is_not_ready_while_one_of_its_processes_hangs(
    service: AnyService, tmp_path: Path, servers: dict[str, str]
):
    async with launched(service.process(tmp_path, **servers)) as process:
        await process.until_ready()
        hanging = max(children_of(process.pid))
        os.kill(hanging, signal.SIGSTOP)
        await until_answer(process, "/readyz", 503, "It does not answer.")
        await until_answer(process, "/livez", 503, "hangs")
        await until_answer(process, "/metrics", 200, "juinie_process_answers")
        os.kill(hanging, signal.SIGCONT)
        await process.until_ready()
        await until_answer(process, "/livez", 200)


async def test_killed_process_is_replaced_and_its_sibling_left_alone(
    service: AnyService, tmp_path: Path, servers: dict[str, str]
):
    async with launched(service.process(tmp_path, **servers)) as process:
        await process.until_ready()
        killed, stays = sorted(children_of(process.pid))
        os.kill(killed, signal.SIGKILL)
        await eventually(
            lambda: len(children_of(process.pid) - {killed}) == 2, START_SECONDS, "another process"
        )
        await process.until_ready()
        assert stays in children_of(process.pid)
        assert await process.stop(STOP_SECONDS) == 0
    lost = [line for line in log_lines(process) if line["event"] == "process_lost"]
    assert [(line["pid"], line["exit_code"]) for line in lost] == [(killed, -signal.SIGKILL)]


async def test_what_waits_for_a_process_that_is_killed_is_answered_by_the_next(
    service: AnyService, tmp_path: Path
):
    async with launched(service.process(tmp_path, JUINIE_PROCESSES="2")) as process:
        await until_answer(process, "/livez", 200)
        frozen = min(children_of(process.pid))
        os.kill(frozen, signal.SIGSTOP)
        connections = [await asyncio.open_connection("127.0.0.1", process.port) for _ in range(CONNECTIONS)]
        for _, writer in connections:
            writer.write(b"GET /livez HTTP/1.1\r\nHost: juinie\r\n\r\n")
        answers = [asyncio.create_task(reader.readline()) for reader, _ in connections]
        await asyncio.wait(answers, return_when=asyncio.FIRST_COMPLETED)
        os.kill(frozen, signal.SIGKILL)
        assert {line[:9] for line in await asyncio.gather(*answers)} == {b"HTTP/1.1 "}
        for _, writer in connections:
            writer.close()


async def test_nothing_is_left_of_a_parent_that_is_killed(service: AnyService, tmp_path: Path):
    async with launched(service.process(tmp_path, JUINIE_PROCESSES="2")) as process:
        await until_answer(process, "/livez", 200)
        children = children_of(process.pid)
        await process.kill()
        await until_gone(children)
        process.launch()
        await until_answer(process, "/livez", 200)


async def test_supervisor_may_signal_parent_and_children_alike(service: AnyService, tmp_path: Path):
    """As systemd does by default: for a child the signal is no second one."""
    async with launched(service.process(tmp_path, JUINIE_PROCESSES="2")) as process:
        await until_answer(process, "/livez", 200)
        children = children_of(process.pid)
        stopping = asyncio.create_task(process.stop(STOP_SECONDS))
        await asyncio.sleep(0)
        for child in children:
            os.kill(child, signal.SIGTERM)
        assert await stopping == 0, process.tail()
    await until_gone(children)


async def test_second_signal_ends_all_at_once(service: AnyService, tmp_path: Path):
    settings = {"JUINIE_LAST_CALL_SECONDS": "600", "JUINIE_DRAIN_SECONDS": "600", "JUINIE_PROCESSES": "2"}
    async with launched(service.process(tmp_path, **settings)) as process:
        await until_answer(process, "/livez", 200)
        children = children_of(process.pid)
        for child in children:
            os.kill(child, signal.SIGSTOP)  # they would be gone before, where there is nothing to drain
        process._send(signal.SIGTERM)
        process._send(signal.SIGINT)
        assert await asyncio.to_thread(process._wait, STOP_SECONDS) == 130
    await until_gone(children)


async def test_wrong_setup_is_told_once(
    service: AnyService, tmp_path: Path, servers: dict[str, str], pool: Pool
):
    """Children find the development key in the database, each of them."""
    async with pool.connection() as connection:
        await ensure_dev_key(connection)
    process = service.process(tmp_path, **servers)
    async with launched(process):
        assert await asyncio.to_thread(process._wait, START_SECONDS) == 1
    assert process.log.read_text().count("The development key is in this database") == 1


async def test_missing_setting_is_told_once_before_any_child(service: AnyService, tmp_path: Path):
    process = service.process(tmp_path, DATABASE_URL="nonsense", JUINIE_PROCESSES="2")
    async with launched(process):
        assert await asyncio.to_thread(process._wait, START_SECONDS) == 1
    assert process.log.read_text().count("\n") == 1
    assert "DATABASE_URL" in process.log.read_text()


@pytest.mark.parametrize("processes", ["1", "2"])
async def test_port_of_another_deployment_is_taken(service: AnyService, tmp_path: Path, processes: str):
    async with launched(service.process(tmp_path, JUINIE_PROCESSES="2")) as first:
        await until_answer(first, "/livez", 200)
        settings = {service.port_setting: str(first.port), "JUINIE_PROCESSES": processes}
        (tmp_path / "other").mkdir()
        async with launched(service.process(tmp_path / "other", **settings)) as second:
            assert await asyncio.to_thread(second._wait, START_SECONDS) == 1
        assert f"Port {first.port} on 127.0.0.1 is taken" in second.log.read_text()
        assert (await until_answer(first, "/livez", 200)).text == '{"status":"ok"}'


async def test_port_of_a_foreign_program_is_taken(service: AnyService, tmp_path: Path):
    with socket.create_server(("127.0.0.1", 0)) as foreign:
        port = str(foreign.getsockname()[1])
        process = service.process(tmp_path, **{service.port_setting: port, "JUINIE_PROCESSES": "2"})
        async with launched(process):
            assert await asyncio.to_thread(process._wait, START_SECONDS) == 1
    assert (
        process.log.read_text()
        == f"Port {port} on 127.0.0.1 is taken by another program. Free it or choose another port.\n"
    )
