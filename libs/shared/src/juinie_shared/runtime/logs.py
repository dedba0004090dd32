"""Structured logs: an event name and keys, one JSON object a line, on stderr."""

import asyncio
import atexit
import logging
import sys
from contextlib import suppress
from datetime import UTC, datetime
from threading import Lock
from typing import Any, Literal, TextIO

import orjson
import structlog
from opentelemetry import trace


def configure_logs(
    service: str, level: str, form: Literal["json", "console"] = "json", process: int | None = None
) -> None:
    """Send what Juinie says (structlog) and what libraries say (the standard library's logging) to the same place, in one form.

    Libraries speak from WARNING on; nothing of ours logs a payload, key or token. Ours do not go through the standard library:
    that takes longer than all else that a log line needs. `process`: which of several this is, named on every line.
    """
    shared: list[Any] = [
        structlog.stdlib.add_log_level,
        _add_time,
        _add_trace_id,
        _constant(service=service) if process is None else _constant(service=service, process=process),
    ]
    render: Any = _json if form == "json" else structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty())
    last = [structlog.processors.format_exc_info, render]
    writer = Writer(sys.stderr)
    atexit.register(writer.write_gathered)
    structlog.configure(
        processors=[*shared, *last],
        wrapper_class=structlog.make_filtering_bound_logger(logging.getLevelNamesMapping()[level.upper()]),
        logger_factory=lambda *_: writer,
        cache_logger_on_first_use=False,
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *last],
        )
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(logging.WARNING)
    # While a broker is away it says so many times a second; our own events say it once, and when it is back.
    logging.getLogger("aiokafka").setLevel(logging.CRITICAL)
    # It warns of each request that is none: whoever sends rubbish would fill the log.
    logging.getLogger("uvicorn.error").setLevel(logging.ERROR)


def get_logger(name: str) -> structlog.stdlib.BoundLogger:
    """A logger below `juinie.`, whose level the settings decide."""
    return structlog.stdlib.get_logger(f"juinie.{name}")


class Writer:
    """Writes lines. Those of one turn of the loop go out together at its end: a write takes as long as all else that a line needs.

    A warning, or what is worse, goes out at once, behind what came before it: it may be the last word. A line that cannot be
    written is lost, as with the standard library's: a full disk, or a pipe that nobody reads, ends no service.
    """

    def __init__(self, file: TextIO) -> None:
        self._file = file
        self._gathered: list[str] = []
        self._writes_in: asyncio.AbstractEventLoop | None = None
        """The loop that will write what is gathered."""
        self._lock = Lock()

    def msg(self, line: str) -> None:
        """Write it at once."""
        with self._lock:
            self._gathered.append(line)
        self.write_gathered()

    def gather(self, line: str) -> None:
        """Write it at the end of this turn; at once where no loop runs."""
        try:
            loop = asyncio.get_running_loop()
        except RuntimeError:
            self.msg(line)
            return
        with self._lock:
            self._gathered.append(line)
        if self._writes_in is not loop:
            self._writes_in = loop
            loop.call_soon(self.write_gathered)

    def write_gathered(self) -> None:
        with self._lock, suppress(OSError, ValueError):
            self._writes_in = None
            if self._gathered:
                lines, self._gathered = self._gathered, []
                self._file.write("\n".join(lines) + "\n")
                self._file.flush()

    debug = info = gather  # one for each level, as structlog has them
    log = warn = warning = fatal = failure = err = error = critical = exception = msg


def _json(_logger: Any, _method: str, event: dict[str, Any]) -> str:
    """Values that JSON does not have, as text."""
    return orjson.dumps(event, default=repr).decode()


def _add_time(_logger: Any, _method: str, event: dict[str, Any]) -> dict[str, Any]:
    event["timestamp"] = datetime.now(UTC).isoformat().replace("+00:00", "Z")
    return event


def _add_trace_id(_logger: Any, _method: str, event: dict[str, Any]) -> dict[str, Any]:
    context = trace.get_current_span().get_span_context()
    if context.is_valid:
        event["trace_id"] = trace.format_trace_id(context.trace_id)
    return event


def _constant(**pairs: str | int) -> Any:
    def add(_logger: Any, _method: str, event: dict[str, Any]) -> dict[str, Any]:
        event.update(pairs)
        return event

    return add
