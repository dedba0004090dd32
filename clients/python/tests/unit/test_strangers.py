"""What the commands say where no Juinie is, or something that is not quite one: exit code 2, one line, no traceback."""

import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Generator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
from typer.testing import CliRunner

from juinie.cli import app

RUN_ID = "0193a1f2-7c3e-7d4b-9a55-0c6a2f1e8b70"
RUN = {"run_id": RUN_ID, "status": "running", "last_seq": 1, "created_at": "2026-11-23T12:00:00.123456Z"}
EVENT = '{"seq":1,"type":"run.created","time":"2026-11-23T12:00:00.123456Z","data":{}}'
PAGE = f'{{"events":[{EVENT}],"next_after_seq":1,"up_to_date":true}}'
COMMANDS = {"verify": ["verify", RUN_ID], "torture": ["torture"]}

type Answer = tuple[int, str, bytes]
type Program = Callable[[BaseHTTPRequestHandler], Answer | None]


def html(status: int = 200) -> Answer:
    return status, "text/html", b"<html>It works!</html>"


def of_json(found: Any, status: int = 200) -> Answer:
    return status, "application/json", json.dumps(found).encode()


def not_found() -> Answer:
    return of_json({"code": "run_not_found", "detail": "There is no such run."}, 404)


@contextmanager
def serving(program: Program) -> Generator[str]:
    """A web server that answers as `program` says, and only closes where that is None. Gives its address."""

    class Handler(BaseHTTPRequestHandler):
        def answer(self) -> None:
            self.rfile.read(int(self.headers.get("Content-Length", 0)))
            if (answered := program(self)) is None:
                return
            status, media, body = answered
            self.send_response(status)
            self.send_header("Content-Type", media)
            self.send_header("Content-Length", str(len(body)))
            if media == "gzip":
                self.send_header("Content-Encoding", "gzip")
            self.end_headers()
            self.wfile.write(body)

        do_GET = do_POST = answer  # noqa: N815 - as they are called there

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - as it is called there
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=[0.01])
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def ask(command: str, api: str, stream: str, *more: str, key: str = "jn_x") -> tuple[int, str]:
    """Exit code, and what was printed, as one line."""
    options = ["--api-url", api, "--stream-url", stream, "--api-key", key]
    result = CliRunner(env={"COLUMNS": "300"}).invoke(app, [*COMMANDS[command], *options, *more])
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result.exit_code, " ".join(result.output.split())


ELSEWHERE: dict[str, Answer | None] = {
    "a web page": html(),
    "no page": html(404),
    "a redirection": html(302),
    "other JSON": of_json({"hello": "world"}),
    "a list": of_json([], 404),
    "a text": of_json("not_found", 404),
    "a broken body": (200, "gzip", b"no gzip"),
    "nothing": None,
}


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize("place", ["api", "stream"])
@pytest.mark.parametrize("answer", ELSEWHERE)
def test_what_is_no_juinie_is_told_at_once_by_its_address(command: str, place: str, answer: str) -> None:
    with serving(lambda _: ELSEWHERE[answer]) as wrong, serving(lambda _: not_found()) as right:
        addresses = {"api": right, "stream": right, place: wrong}
        code, printed = ask(command, addresses["api"], addresses["stream"])

    assert (code, wrong in printed) == (2, True), printed


@pytest.mark.parametrize("command", COMMANDS)
def test_address_where_nobody_answers_is_tried_once(command: str) -> None:
    with socket.socket() as bound:  # to a port on which nobody listens
        bound.bind(("127.0.0.1", 0))
        nobody = f"http://127.0.0.1:{bound.getsockname()[1]}"
        code, printed = ask(command, nobody, nobody)

    assert (code, f"no answer from {nobody}: ConnectError" in printed) == (2, True), printed


@pytest.mark.parametrize("command", COMMANDS)
def test_key_that_is_refused_is_told_at_once(command: str) -> None:
    refusal = of_json({"code": "not_authenticated", "detail": "A valid API key is needed."}, 401)
    with serving(lambda _: refusal) as url:
        code, printed = ask(command, url, url)

    assert (code, "401 not_authenticated: A valid API key is needed." in printed) == (2, True), printed


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize(
    "url",
    ["http://[::1", "http://127.0.0.1:99999", "http://127.0.0.1:x", "127.0.0.1:8000", "juinie.example", "",
     "ftp://127.0.0.1", "http://", "http://a:b@127.0.0.1", "http://127.0.0.1/?a=b", "http://127.0.0.1:0"],
)  # fmt: skip
def test_what_is_no_address_is_refused_before_anything_is_asked(command: str, url: str) -> None:
    for addresses in ((url, "http://127.0.0.1:1"), ("http://127.0.0.1:1", url)):
        code, printed = ask(command, *addresses)

        assert (code, "Invalid value for '--" in printed) == (2, True), printed


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize("key", ["schlüssel", "a b", "a\nb", ""])
def test_key_that_no_header_can_carry_is_refused_and_not_repeated(command: str, key: str) -> None:
    code, printed = ask(command, "http://127.0.0.1:1", "http://127.0.0.1:1", key=key)

    assert (code, "printable ASCII" in printed) == (2, True), printed
    assert not key or key not in printed


@pytest.mark.parametrize(
    "options",
    [("--heal", "a=true"), ("--fault", "a=true", "--heal", "b=true"), ("--fault", "a=true", "--fault", "a=false"),
     ("--seconds", "-1"), ("--rate", "0"), ("--runs", "0"), ("--watchers", "0"), ("--reconnects", "-1")],
)  # fmt: skip
def test_torture_refuses_options_that_cannot_be_meant(options: tuple[str, ...]) -> None:
    code, printed = ask("torture", "http://127.0.0.1:1", "http://127.0.0.1:1", *options)

    assert (code, "Invalid value" in printed) == (2, True), printed


@pytest.mark.parametrize(
    "options",
    [("--kafka", "127.0.0.1"), ("--kafka", "127.0.0.1:99999"), ("--kafka", "a:9092,b:x"), ("--kafka", "[::1:9092"),
     ("--kafka", ""), ("--database-url", "nonsense"), ("--database-url", "postgresql://u:hidden@h:99999/x"),
     ("--database-url", "postgresql://[::1"), ("--wait-seconds", "-1")],
)  # fmt: skip
def test_verify_refuses_places_that_are_none(options: tuple[str, ...]) -> None:
    code, printed = ask("verify", "http://127.0.0.1:1", "http://127.0.0.1:1", *options)

    assert (code, "Invalid value" in printed, "hidden" in printed) == (2, True, False), printed


def test_run_that_is_no_uuid_is_refused() -> None:
    addresses = ["--api-url", "http://127.0.0.1:1", "--stream-url", "http://127.0.0.1:1", "--api-key", "jn_x"]
    result = CliRunner().invoke(app, ["verify", "../runs", *addresses])

    assert (result.exit_code, "valid UUID" in result.output) == (2, True), result.output


# ---- a Juinie for the first question, and something else afterwards ------------------------------------------------------


def verify_one(**answers: Answer) -> tuple[int, str]:
    """Verify the run where the `run`, the `page` or the `stream` is what is given."""
    told = {"run": of_json(RUN), "page": (200, "application/json", PAGE.encode()), **answers}

    def program(asked: BaseHTTPRequestHandler) -> Answer:
        if RUN_ID not in asked.path:
            return not_found()
        kind = asked.path.partition("?")[0].rpartition("/")[2]
        return told[{"events": "page", "stream": "stream"}.get(kind, "run")]

    with serving(program) as url:
        return ask("verify", url, url, "--wait-seconds", "1")


def frames(text: str) -> Answer:
    return 200, "text/event-stream", text.encode()


GOOD_FRAME = f"id: 1\ndata: {EVENT}\n\n"


@pytest.mark.parametrize(
    "lie",
    [{"run": of_json(RUN | {"last_seq": "1"})}, {"run": of_json({"run_id": RUN_ID})}, {"run": html()},
     {"page": of_json({"events": [1], "next_after_seq": 1, "up_to_date": True})},
     {"page": of_json({"events": {}, "next_after_seq": 1, "up_to_date": True})},
     {"page": of_json({"code": "events_gone", "detail": "Gone."}, 410)},
     {"stream": html()}, {"stream": frames("id: x\n\n")}, {"stream": frames("data: rubbish\n\n")}],
    ids=["a number as text", "a run without fields", "a page for a run", "no events", "no list", "gone, and no more",
         "a page for a stream", "a position that is none", "a frame that is no event"],
)  # fmt: skip
def test_answer_that_cannot_be_read_ends_verify_with_one_line(lie: dict[str, Answer]) -> None:
    code, printed = verify_one(**{"stream": frames(GOOD_FRAME), **lie})

    assert (code, "unreadable" in printed, "Cannot verify" in printed) == (2, True, True), printed


def test_truth_is_verified() -> None:
    assert verify_one(stream=frames(GOOD_FRAME))[0] == 0


def test_end_without_a_status_is_a_fault_of_the_run() -> None:
    end = EVENT.replace("run.created", "run.finished").replace("{}", "7")
    page = (200, "application/json", PAGE.replace(EVENT, end).encode())
    stream = frames(f"id: 1\ndata: {end}\n\nevent: stream.end\ndata: {{}}\n\n")
    code, printed = verify_one(run=of_json(RUN | {"status": "success"}), page=page, stream=stream)

    assert (code, "its end says None" in printed) == (1, True), printed


# ---- lines ---------------------------------------------------------------------------------------------------------------


def test_lines_that_cannot_be_made_bad_are_not_left_out_in_silence() -> None:
    code, printed = ask("torture", "https://127.0.0.1:1", "https://127.0.0.1:1")

    assert (code, "--no-lines" in printed) == (2, True), printed


def test_path_and_host_of_an_address_go_over_the_lines_too() -> None:
    asked: set[tuple[str, str]] = set()

    def program(request: BaseHTTPRequestHandler) -> Answer:
        if request.command == "POST":  # the probe's run: the first that goes over a line
            asked.add((request.headers["Host"], request.path))
            return of_json({"code": "forbidden", "detail": "Not here."}, 403)
        return not_found()

    with serving(program) as url:
        named = url.replace("127.0.0.1", "localhost") + "/some/where/"
        code, printed = ask("torture", named, named)

    assert (code, "403 forbidden" in printed) == (2, True), printed
    assert asked == {(named.split("/")[2], "/some/where/v1/runs")}


def test_second_ctrl_c_ends_the_torture_at_once() -> None:
    """The first is in vain here: a run is to be created first, and is never answered."""
    asked, told = threading.Event(), threading.Event()

    def program(request: BaseHTTPRequestHandler) -> Answer | None:
        if request.command != "POST":
            return not_found()
        asked.set()
        told.wait(60)
        return None

    with serving(program) as url:
        arguments = ["torture", "--api-url", url, "--stream-url", url, "--api-key", "jn_x"]
        command = [sys.executable, "-c", "from juinie.cli import main; main()", *arguments]
        with subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        ) as process:
            assert asked.wait(30)
            os.kill(process.pid, signal.SIGINT)
            os.kill(process.pid, signal.SIGTERM)
            printed, _ = process.communicate(timeout=30)
        told.set()

    assert (process.returncode, "Broken off" in printed) == (2, True), printed
    assert not re.search("Traceback", printed)
