"""The outlet on ASGI: bounded, cut in whole frames, and over in time."""

import asyncio
from typing import Any

from juinie_stream_gateway.edges.connection import HttpConnection
from juinie_stream_gateway.edges.outlet import OutletLimits, ResponseOutlet


class Client:
    """A connection's two ends: ASGI's `send`, which lets through while the client reads, and the transport below."""

    def __init__(self) -> None:
        self.bodies: list[bytes] = []
        self.reading = asyncio.Event()
        self.reading.set()
        self.aborted = asyncio.Event()
        self.in_transport = 0

    def outlet(self, **limits: Any) -> ResponseOutlet:
        scope = {"extensions": {"juinie.transport": {"transport": self}}}
        return ResponseOutlet(HttpConnection(scope, self.receive, self.send), OutletLimits(**limits))

    async def receive(self) -> dict[str, Any]:
        return {"type": "http.disconnect"}

    async def send(self, message: dict[str, Any]) -> None:
        await self.reading.wait()
        if message["body"]:
            self.bodies.append(message["body"])

    def abort(self) -> None:
        self.aborted.set()
        self.reading.set()

    def is_closing(self) -> bool:
        return self.aborted.is_set()

    def get_write_buffer_size(self) -> int:
        return self.in_transport

    def get_extra_info(self, _name: str) -> None:
        return None


async def test_what_was_written_goes_out_joined_and_in_order() -> None:
    client = Client()
    outlet = client.outlet()
    for number in range(5):
        outlet.write(b"%d;" % number)
    await outlet.flush()
    assert client.bodies == [b"0;1;2;3;4;"]


async def test_large_pieces_go_out_whole_in_chunks() -> None:
    client = Client()
    outlet = client.outlet()
    for _ in range(3):
        outlet.write(b"x" * 50_000)
    await outlet.flush()
    assert [len(body) for body in client.bodies] == [50_000, 50_000, 50_000]


async def test_it_is_full_beyond_its_buffer_and_takes_more_when_flushed() -> None:
    client = Client()
    outlet = client.outlet(buffer_bytes=10)
    outlet.write(b"x" * 10)
    assert not outlet.full
    outlet.write(b"x")
    assert outlet.full
    await outlet.flush()
    assert not outlet.full


async def test_what_the_transport_could_not_pass_on_counts_too() -> None:
    client = Client()
    outlet = client.outlet(buffer_bytes=10)
    client.in_transport = 6
    outlet.write(b"x" * 4)
    assert not outlet.full
    outlet.write(b"x")
    assert (outlet.full, outlet.held_bytes) == (True, 11)


async def test_what_is_in_hand_counts_while_the_client_does_not_read() -> None:
    client = Client()
    client.reading.clear()
    outlet = client.outlet(buffer_bytes=10)
    outlet.write(b"x" * 11)
    flushing = asyncio.create_task(outlet.flush())
    await asyncio.sleep(0)
    assert (outlet.full, outlet.held_bytes) == (True, 11)
    client.reading.set()
    await flushing
    assert outlet.held_bytes == 0


async def test_flushing_waits_until_the_transport_has_passed_on_most_of_it() -> None:
    client = Client()
    client.in_transport = 70_000
    send = client.send

    async def send_then_wait(message: dict[str, Any]) -> None:
        await send(message)
        client.reading.clear()

    client.send = send_then_wait  # pyright: ignore[reportAttributeAccessIssue]
    outlet = client.outlet()
    outlet.write(b"sent")
    flushing = asyncio.create_task(outlet.flush())
    while client.reading.is_set():
        await asyncio.sleep(0)
    assert client.bodies == [b"sent"]
    assert not flushing.done()
    client.reading.set()
    await flushing


async def test_a_client_is_waited_for_until_it_is_given_up_and_then_told_to_reconnect_and_cut() -> None:
    client = Client()
    client.reading.clear()
    outlet = client.outlet(close_seconds=0.1)
    outlet.write(b"never read")
    outlet.write(b"x" * 70_000)
    flushing = asyncio.create_task(outlet.flush())
    await asyncio.sleep(0)
    assert not flushing.done()
    outlet.give_up()
    await asyncio.wait_for(client.aborted.wait(), 30)
    await flushing
    assert outlet.closing == "slow"
    assert len(client.bodies) == 1
    assert client.bodies[0].endswith(b'event: stream.reconnect\ndata: {"reason":"slow"}\n\n')


async def test_a_client_that_does_not_take_what_the_kernel_has_is_told_behind_it() -> None:
    client = Client()
    outlet = client.outlet()
    outlet.write(b"taken by the kernel;")
    await outlet.flush()
    outlet.give_up()
    await outlet.flush()
    outlet.settle()
    assert outlet.closing == "slow"
    assert client.bodies[0] == b"taken by the kernel;"
    assert client.bodies[1].endswith(b'event: stream.reconnect\ndata: {"reason":"slow"}\n\n')


async def test_an_end_that_was_not_read_in_time_is_no_end() -> None:
    client = Client()
    client.reading.clear()
    outlet = client.outlet(close_seconds=0.1)
    outlet.write(b"event: stream.end")
    outlet.finish()
    flushing = asyncio.create_task(outlet.flush())
    await asyncio.sleep(0)
    outlet.give_up()
    await asyncio.wait_for(client.aborted.wait(), 30)
    await flushing
    assert outlet.closing == "slow"
    assert b"stream.end" not in b"".join(client.bodies)


async def test_a_client_that_does_not_take_the_last_chunk_is_cut() -> None:
    client = Client()
    outlet = client.outlet()
    client.reading.clear()
    ending = asyncio.create_task(outlet.send_last_chunk())
    await asyncio.sleep(0)
    outlet.give_up()
    await asyncio.wait_for(client.aborted.wait(), 30)
    await ending
    assert client.bodies == []


async def test_who_is_sent_away_already_is_not_given_up_besides() -> None:
    client = Client()
    outlet = client.outlet()
    outlet.reconnect("draining")
    outlet.give_up()
    await outlet.flush()
    outlet.settle()
    assert outlet.closing == "draining"
    assert b"draining" in client.bodies[0]


async def test_nothing_is_taken_after_the_last_frame() -> None:
    client = Client()
    outlet = client.outlet()
    outlet.write(b"event;")
    outlet.reconnect("draining")
    outlet.write(b"too late")
    outlet.reconnect("slow")
    await outlet.flush()
    outlet.settle()
    retry, _, rest = client.bodies[0].removeprefix(b"event;").partition(b"\n")
    assert 1000 <= int(retry.removeprefix(b"retry: ")) <= 5000
    assert rest == b'event: stream.reconnect\ndata: {"reason":"draining"}\n\n'


async def test_those_who_are_sent_away_together_do_not_come_back_together() -> None:
    waits = list[int]()
    for _ in range(60):
        client = Client()
        outlet = client.outlet()
        outlet.reconnect("draining")
        await outlet.flush()
        outlet.settle()
        waits.append(int(client.bodies[0].partition(b"\n")[0].removeprefix(b"retry: ")))
    assert min(waits) >= 1000
    assert max(waits) <= 5000
    assert max(waits) - min(waits) > 2000, "half of what they are spread over"
    assert len(set(waits)) > 30


async def test_waiting_ends_with_the_first_write_and_with_the_close() -> None:
    client = Client()
    outlet = client.outlet()
    waiting = asyncio.create_task(outlet.wait())
    await asyncio.sleep(0)
    assert not waiting.done()
    outlet.write(b"frame")
    await waiting
    await outlet.flush()
    waiting = asyncio.create_task(outlet.wait())
    await asyncio.sleep(0)
    outlet.left()
    await waiting


async def test_who_rests_is_woken_once_by_what_cannot_go_out_at_once() -> None:
    woken = list[str]()
    outlet = Client().outlet()
    outlet.rest(lambda: woken.append("woken"))
    outlet.write(b"frame")
    outlet.write(b"and another")
    assert woken == ["woken"]
    await outlet.flush()
    outlet.rest(lambda: woken.append("woken again"))
    outlet.wake()
    outlet.wake()
    assert woken == ["woken", "woken again"]


async def test_who_rests_is_woken_when_its_client_has_gone_and_when_it_is_sent_away() -> None:
    for end in ("left", "give_up", "finish"):
        woken, outlet = list[str | None](), Client().outlet()
        outlet.rest(lambda woken=woken, outlet=outlet: woken.append(outlet.closing))
        assert outlet.idle
        getattr(outlet, end)()
        assert not outlet.idle
        assert len(woken) == 1
        outlet.settle()
