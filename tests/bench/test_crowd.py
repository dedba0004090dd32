"""A watcher of the benches knows the number of the last event that it was sent, however the frames come."""

from collections.abc import Callable
from types import ModuleType

import pytest

OURS = [
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
    b'1c\r\ndata: {"seq":1}\nid: 1\n\n\r\n',
    b'1c\r\ndata: {"seq":2}\nid: 2\n\n\r\n',
]
CENTRIFUGO = [
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n\r\n\r\n",
    b'30\r\ndata: {"connect":{"client":"a","subs":{"run":{"offset":0}}}}\n\n\r\n',
    b'40\r\ndata: {"channel":"run","pub":{"data":{"seq":1,"type":"T"},"offset":1}}\n\n\r\n',
    b'40\r\ndata: {"channel":"run","pub":{"data":{"seq":2,"type":"T"},"offset":2}}\n\n\r\n',
]
MERCURE = [
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
    b"3\r\n:\n\n\r\n",
    b'20\r\nid: 1\ndata: {"seq":1,"type":"T"}\n\n\r\n',
    b'20\r\nid: 2\ndata: {"seq":2,"type":"T"}\n\n\r\n',
]
IN_JSON = (b'"seq":', b",")


@pytest.mark.parametrize(
    ("pieces", "marks"),
    [(OURS, None), (CENTRIFUGO, IN_JSON), (MERCURE, IN_JSON)],
    ids=["ours", "centrifugo", "mercure"],
)
@pytest.mark.parametrize("size", [1, 7, 64, 10_000])
def test_the_last_events_number_is_known(
    bench_module: Callable[[str], ModuleType],
    pieces: list[bytes],
    marks: tuple[bytes, bytes] | None,
    size: int,
):
    crowd = bench_module("crowd")
    watcher = crowd.Watcher(b"", None, marks or crowd.OURS)
    sent = b"".join(pieces)
    seen = [0]
    for start in range(0, len(sent), size):
        watcher.data_received(sent[start : start + size])
        seen.append(watcher.last_id)
    assert watcher.head
    assert seen == sorted(seen)
    assert seen[-1] == 2
