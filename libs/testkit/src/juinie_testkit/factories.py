"""Bodies of requests, made up: right in shape, and with JSON that breaks what is not careful with it."""

import random
from typing import Any, NotRequired, TypedDict

from polyfactory.factories import TypedDictFactory

NASTY_JSON: tuple[str, ...] = (
    "null", "true", "0", "-0", "-0.0", "1.0", "1e400", "-1E-400", "9007199254740993", "123456789012345678901234567890",
    '""', r'"\u0000"', r'"\ud83d\ude00"', r'"\/ \" \\ \b\f\n\r\t"', '"é 日本 🜁 \u2028\u2029 \u007f"',
    '"data: 1"', '"id: 7"', r'"\n\nevent: stream.end\n"', '": comment"',
    "[]", "{}", '{"":{"":[]}}', '{"z":1,"a":2,"z":3}', '{"__proto__":{"toString":null}}', "[[[[[[[[]]]]]]]]",
    '"$1 %s {0} \'; DROP TABLE run; --"',
)  # fmt: skip
"""JSON texts without white space outside strings: each has to come out as it goes in."""

EVENT_TYPES = ("TEXT_MESSAGE_CONTENT", "TOOL_CALL_START", "STATE_DELTA", "custom/a.b-c_d", "x", "T" * 128)


class CreateBody(TypedDict):
    """The body of `POST /v1/runs`."""

    agent: str
    thread_id: NotRequired[str]
    input: NotRequired[Any]
    metadata: NotRequired[dict[str, str]]
    timeout_seconds: NotRequired[int]


class EventBody(TypedDict):
    """One of the events in the body of `POST /v1/runs/{run_id}/events`."""

    type: str
    data: Any


class CreateBodyFactory(TypedDictFactory[CreateBody]):
    """Creates that are right. `CreateBodyFactory.build(agent="mine")`."""

    __check_model__ = False

    @classmethod
    def agent(cls) -> str:
        return cls.__random__.choice(("researcher", "a", "ü" * 10, "writer/2"))

    @classmethod
    def thread_id(cls) -> str:
        return f"thread-{cls.__random__.randrange(10**9)}"

    @classmethod
    def input(cls) -> Any:
        return {"question": cls.__faker__.sentence(), "nested": [None, 1.5, {"é": "日本"}]}

    @classmethod
    def metadata(cls) -> dict[str, str]:
        return {"user": cls.__faker__.uuid4(cast_to=str)}

    @classmethod
    def timeout_seconds(cls) -> int:
        return cls.__random__.randrange(60, 3600)


class EventBodyFactory(TypedDictFactory[EventBody]):
    """Events that are right, with ordinary data."""

    __check_model__ = False

    @classmethod
    def type(cls) -> str:
        return cls.__random__.choice(EVENT_TYPES)

    @classmethod
    def data(cls) -> Any:
        return {"delta": cls.__faker__.word()}


def nasty_append(seed: int, count: int = 5) -> tuple[bytes, list[str]]:
    """The body of an append as bytes, and its events' data as they have to come out. The same for the same `seed`."""
    chance = random.Random(seed)  # noqa: S311 - no secret
    data = [chance.choice(NASTY_JSON) for _ in range(count)]
    events = [f'{{ "type" : "{chance.choice(EVENT_TYPES)}" ,\n\t"data" : {text} }}' for text in data]
    return f'{{"events": [{", ".join(events)}]}}'.encode(), data
