"""Serves `browser/` on a free port and makes the link that opens it on one run.

The link carries a stream token after the `#`: a browser never sends that part to a server, and the API key stays here.
"""

import asyncio
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Event, Thread
from typing import override

import httpx

PAGE = Path(__file__).parent / "browser"
TOKEN_SECONDS = 600


class _Handler(SimpleHTTPRequestHandler):
    def __init__(self, *args: object, asked: Event, **kwargs: object) -> None:
        self._asked = asked
        super().__init__(*args, directory=str(PAGE), **kwargs)  # type: ignore[arg-type]

    @override
    def do_GET(self) -> None:
        super().do_GET()
        self._asked.set()

    @override
    def log_message(self, format: str, *args: object) -> None:
        """Say nothing: the terminal belongs to the demo."""


class PageServer:
    """The page at `url`; `asked` is set once a browser has asked for it."""

    def __init__(self) -> None:
        self.asked = Event()
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), partial(_Handler, asked=self.asked))
        self.url = f"http://localhost:{self._server.server_port}/"
        Thread(target=self._server.serve_forever, daemon=True).start()

    async def opened(self) -> None:
        """Wait until a browser has opened the page."""
        await asyncio.to_thread(self.asked.wait)

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


async def watch_link(api: httpx.AsyncClient, page_url: str, run_id: str, stream_url: str) -> str:
    """The address at which a browser watches this run."""
    answer = await api.post(f"/v1/runs/{run_id}/stream-tokens", json={"ttl_seconds": TOKEN_SECONDS})
    token = answer.raise_for_status().json()["token"]
    return f"{page_url}#{stream_url}?token={token}"
