"""The port of several processes: theirs alone, spread evenly, and kept while one of them is replaced."""

import errno
import select
import socket
import sys
from collections.abc import Generator
from contextlib import ExitStack, contextmanager
from functools import partial

import pytest

from juinie_shared.domain.errors import PortTaken
from juinie_shared.runtime import port
from juinie_shared.runtime.port import BACKLOG, share_port, take_port

CONNECTIONS = 400


@contextmanager
def shared(count: int, port: int = 0) -> Generator[list[socket.socket]]:
    with ExitStack() as stack:
        yield [stack.enter_context(listener) for listener in share_port("127.0.0.1", port, count)]


def port_of(listener: socket.socket) -> int:
    return listener.getsockname()[1]


def accepted(listener: socket.socket) -> int:
    """How many connections wait there."""
    listener.setblocking(False)
    found = 0
    while True:
        try:
            peer, _ = listener.accept()
        except BlockingIOError:
            return found
        peer.close()
        found += 1


@contextmanager
def connected(port: int, count: int) -> Generator[None]:
    with ExitStack() as stack:
        for _ in range(count):
            stack.enter_context(socket.create_connection(("127.0.0.1", port), 5))
        yield


def test_all_listeners_are_on_one_port_also_when_the_system_chooses_it():
    with shared(3) as listeners:
        assert len({port_of(listener) for listener in listeners}) == 1


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere all accept from one listener")
def test_connections_are_spread_over_the_listeners():
    with shared(2) as listeners, connected(port_of(listeners[0]), CONNECTIONS):
        counts = [accepted(listener) for listener in listeners]
    assert sum(counts) == CONNECTIONS
    assert min(counts) > CONNECTIONS / 4  # seven standard deviations are 70


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere there is one listener from the beginning")
def test_the_listener_that_looks_whether_the_port_is_free_is_deaf(monkeypatch):
    """Who connects between its first moment and its last gets one of the others."""
    peers: list[socket.socket] = []
    listen = port._listen

    def listen_and_connect(listener: socket.socket, host: str, number: int, **options: int) -> None:
        listen(listener, host, number, **options)
        if not peers:
            peers.append(socket.socket())
            peers[0].setblocking(False)
            assert peers[0].connect_ex(listener.getsockname()) == errno.EINPROGRESS
            assert select.select([], peers, [], 0)[1] == []

    monkeypatch.setattr(port, "_listen", listen_and_connect)
    with shared(2) as listeners, peers[0]:
        ready, _, _ = select.select(listeners, [], [], 30)
        assert len(ready) == 1


def test_a_port_that_another_program_has_is_told():
    with take_port("127.0.0.1", 0) as other, pytest.raises(PortTaken):
        share_port("127.0.0.1", port_of(other), 2)


@pytest.mark.parametrize("take", [take_port, partial(share_port, count=2)])
def test_a_shared_port_is_taken_for_all_others_of_the_same_user(take):
    with shared(2) as listeners, pytest.raises(PortTaken):
        take("127.0.0.1", port_of(listeners[0]))


def test_a_port_is_free_again_once_all_have_closed_it():
    with shared(2) as listeners:
        port = port_of(listeners[0])
    with shared(2, port) as listeners:
        assert port_of(listeners[1]) == port


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere all accept from one listener")
def test_a_listener_that_rests_gets_nothing_and_keeps_the_port():
    with shared(2) as (resting, other):
        port = port_of(other)
        resting.shutdown(socket.SHUT_RD)
        with connected(port, 50):
            assert accepted(other) == 50
        with pytest.raises(PortTaken):
            take_port("127.0.0.1", port)
        resting.listen(BACKLOG)
        with connected(port, CONNECTIONS):
            assert accepted(resting) > 0
