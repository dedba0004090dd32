"""The stream's frames, from bytes in any pieces."""

import itertools

from hypothesis import given
from hypothesis import strategies as st

from juinie.sse import Frame, FrameReader

BODY = (
    b'retry: 2000\n: juinie\ndata: {"seq":1}\nid: 1\n\n: \nid: 5\n\nevent: stream.caught_up\ndata: {"last_seq":5}\n\n'
    b'retry: 350\nevent: stream.reconnect\ndata: {"reason":"draining"}\n\n'
)
FRAMES = [
    Frame("", b'{"seq":1}', 1),
    Frame("", b"", 5),
    Frame("stream.caught_up", b'{"last_seq":5}', None),
    Frame("stream.reconnect", b'{"reason":"draining"}', None),
]


def test_frames_and_retry_are_read() -> None:
    reader = FrameReader()

    assert reader.feed(BODY) == FRAMES
    assert reader.retry_seconds == 0.35


@given(st.lists(st.integers(0, len(BODY))))
def test_pieces_of_any_size_give_the_same_frames(cuts: list[int]) -> None:
    reader, places = FrameReader(), [0, *sorted(cuts), len(BODY)]
    frames = [frame for start, stop in itertools.pairwise(places) for frame in reader.feed(BODY[start:stop])]

    assert frames == FRAMES


def test_frame_that_was_cut_off_is_none() -> None:
    assert FrameReader().feed(b'data: {"seq":1}\nid: 1\n') == []
