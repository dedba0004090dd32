"""Who answers past the CORS middleware marks its answers as that does."""

from typing import Any

import pytest

from juinie_shared.runtime.cors import Cors

OWN = [(b"content-type", b"text/event-stream")]


async def answered(cors: Cors, origin: str | None) -> list[tuple[bytes, bytes]]:
    """The headers of an answer that went through the middleware."""
    heads: list[Any] = []

    async def app(_scope: Any, _receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": [*OWN]})

    async def send(message: Any) -> None:
        heads.append(message)

    sent = [] if origin is None else [(b"origin", origin.encode())]
    await cors.around(app)({"type": "http", "method": "GET", "headers": sent}, None, send)
    return sorted(heads[0]["headers"])


@pytest.mark.parametrize(
    "origin", [None, "https://app.example", "https://evil.example", "null", "http://localhost:5173", ""]
)
@pytest.mark.parametrize("origins", [(), ("https://app.example",), ("*",)])
@pytest.mark.parametrize("dev", [True, False])
async def test_marks_are_what_the_middleware_adds(
    origin: str | None, origins: tuple[str, ...], dev: bool
) -> None:
    cors = Cors(origins, dev, ("GET",))
    assert sorted([*OWN, *cors.marks(origin)]) == await answered(cors, origin)
