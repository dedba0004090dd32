"""SSE as Juinie promises it, read strictly: whatever CONTRACT-breaking bytes come, they are a violation, not a guess.

A parser of the letter of WHATWG HTML §9.2.6 would forgive most of what this one refuses.
"""

import json
from dataclasses import dataclass, field
from typing import Any

_CONTROL = "stream."


class StreamViolation(AssertionError):
    """The stream broke its own rules."""


@dataclass(frozen=True, slots=True)
class Frame:
    """One frame: a run event (`event` is None), a `stream.*` frame, a lone cursor, a comment or a retry line."""

    event: str | None = None
    data: str | None = None
    id: int | None = None
    retry: int | None = None
    comment: str | None = None

    @property
    def json(self) -> Any:
        """Its data, decoded."""
        return json.loads(self.data or "null")

    @property
    def is_run_event(self) -> bool:
        return self.data is not None and self.event is None


@dataclass
class FrameReader:
    """Turns the bytes of a body into frames.

    Raises:
        StreamViolation: from `feed` and `finish`.
    """

    _rest: bytes = b""
    _block: dict[str, str] = field(default_factory=dict[str, str])
    _seen_any: bool = False

    def feed(self, data: bytes) -> list[Frame]:
        """The frames that these bytes complete."""
        *lines, self._rest = (self._rest + data).split(b"\n")
        return [frame for line in lines if (frame := self._line(line)) is not None]

    def finish(self) -> None:
        """The body ended cleanly: nothing may be half written."""
        if self._rest or self._block:
            raise StreamViolation("The body ended in the middle of a frame.")

    def _line(self, line: bytes) -> Frame | None:
        if b"\r" in line:
            raise StreamViolation("A line ends with CR.")
        text = line.decode()  # not UTF-8 raises, as it should
        if not self._seen_any and not text.startswith("retry: "):
            raise StreamViolation(f"The first line is not `retry:` but {text!r}.")
        self._seen_any = True
        if not text:
            return self._dispatch()
        name, _, value = text.partition(":")
        value = value.removeprefix(" ")
        if name in {"", "retry"}:
            if self._block:
                raise StreamViolation(f"{text!r} stands within a frame.")
            return Frame(comment=value) if name == "" else Frame(retry=int(value))
        self._take(name, value)
        return None

    def _take(self, name: str, value: str) -> None:
        if name not in {"event", "data", "id"}:
            raise StreamViolation(f"Unknown field {name!r}.")
        if name in self._block:
            raise StreamViolation(f"Field {name!r} stands twice in a frame.")
        if name == "event" and self._block:
            raise StreamViolation("`event` does not come first.")
        if name == "data" and "id" in self._block:
            raise StreamViolation("`id` comes before its data: a cut between the two would skip an event.")
        self._block[name] = value

    def _dispatch(self) -> Frame:
        if not self._block:
            raise StreamViolation("A blank line without a frame: some clients take it for a message.")
        block, self._block = self._block, {}
        frame = Frame(
            event=block.get("event"), data=block.get("data"), id=int(block["id"]) if "id" in block else None
        )
        _check(frame)
        return frame


def _check(frame: Frame) -> None:
    if frame.event is not None:
        if not frame.event.startswith(_CONTROL):
            raise StreamViolation(f"Only stream.* frames have a name, not {frame.event!r}.")
        if frame.id is not None or not isinstance(frame.json, dict):
            raise StreamViolation(f"{frame.event} carries an id, or data that is no object.")
    elif frame.data is not None and (frame.id is None or frame.json["seq"] != frame.id):
        raise StreamViolation(f"A run event whose id is {frame.id} says of itself: {frame.data[:80]}")
