"""Load goes to this machine; to another one only where that was said."""

import asyncio
import re
import socket
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest

from juinie_testkit.plain_http import NO_TLS

BENCH = Path(__file__).parents[2] / "bench"
STRANGER = "192.0.2.1"
"""An address that nobody has (RFC 5737)."""
CONNECTS = re.compile(
    r"\b(create_connection|open_connection|sock_connect|AsyncClient|urlopen|httpx\.(get|post))\("
)
NO_LOAD = {
    "statements.py",  # hands on what a service says to its Postgres
    "peer_hubs.py",  # asks a peer whether it is ready
    "port_spread.py",  # to listeners of its own
    "power_off.py",  # a client without power, in a network of its own
}


@pytest.fixture
def reach(bench_module: Callable[[str], ModuleType]) -> ModuleType:
    return bench_module("reach")


@pytest.mark.parametrize("host", ["127.0.0.1", "127.8.8.8", "::1", "localhost"])
def test_this_machine_is_no_stranger(reach, host):
    reach.refuse_strangers(host)


@pytest.mark.parametrize("host", [STRANGER, "::", "2001:db8::1", "0.0.0.0", "::ffff:192.0.2.1"])
async def test_no_connection_is_made_to_a_stranger(reach, host):
    with pytest.raises(reach.NotLoopback, match="--anywhere"):
        await reach.connect(asyncio.Protocol, 9, host)


def test_a_name_with_one_strange_address_is_a_stranger(reach, monkeypatch):
    both = [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, 0)) for address in ("127.0.0.1", STRANGER)]
    monkeypatch.setattr(reach.socket, "getaddrinfo", lambda *_: both)
    with pytest.raises(reach.NotLoopback):
        reach.refuse_strangers("both.example")


def test_who_says_anywhere_may(reach):
    reach.refuse_strangers(STRANGER, anywhere=True)


async def test_a_connection_to_this_machine_is_made(reach):
    server = await asyncio.start_server(lambda _, writer: writer.close(), "127.0.0.1", 0)
    async with server:
        made: list[asyncio.Protocol] = []
        protocol = await reach.connect(
            lambda: made.append(asyncio.Protocol()) or made[0], server.sockets[0].getsockname()[1]
        )
    assert made == [protocol]


async def test_a_client_of_httpx_asks_no_stranger(reach):
    async with reach.http_client(base_url="http://127.0.0.1:9") as client:
        with pytest.raises(reach.NotLoopback):
            await client.get(f"http://{STRANGER}/")


async def test_a_client_of_httpx_asks_this_machine(reach):
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 204 No Content\r\n\r\n")
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    async with server:
        port = server.sockets[0].getsockname()[1]
        async with reach.http_client(base_url=f"http://127.0.0.1:{port}", verify=NO_TLS) as client:
            assert (await client.get("/")).status_code == 204


async def test_watchers_are_sent_to_no_stranger():
    process = await asyncio.create_subprocess_exec(
        sys.executable, BENCH / "returning.py", "9", "key", "0", "1", "1", "--host", STRANGER,
        stdin=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    _, said = await process.communicate()
    assert process.returncode == 2
    assert f"{STRANGER} is not this machine. Load is sent to others only with --anywhere." in said.decode()


def test_nothing_that_sends_load_connects_in_a_way_of_its_own():
    """Those of pytest start their servers on 127.0.0.1, and have no other address."""
    own_ways = {
        file.name
        for file in BENCH.glob("*.py")
        if CONNECTS.search(file.read_text()) and "import pytest" not in file.read_text()
    }
    assert own_ways - NO_LOAD == {"reach.py"}
