"""Structured logs: an event name and keys, one JSON object a line, on stderr."""

import logging
import sys
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Literal, TextIO, override

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
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        _add_trace_id,
        _constant(service=service) if process is None else _constant(service=service, process=process),
    ]
    render: Any = (
        structlog.processors.JSONRenderer(serializer=_json)
        if form == "json"
        else structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty())
    )
    last = [structlog.processors.format_exc_info, render]
    structlog.configure(
        processors=[*shared, *last],
        wrapper_class=structlog.make_filtering_bound_logger(logging.getLevelNamesMapping()[level.upper()]),
        logger_factory=_writer(sys.stderr),
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


class _Writer(structlog.WriteLogger):
    """A line that cannot be written is lost, as with the standard library's: a full disk, or a pipe that nobody reads, ends no service."""

    @override
    def msg(self, message: str) -> None:
        with suppress(OSError, ValueError):
            super().msg(message)

    log = debug = info = warn = warning = msg  # one for each level, as structlog has them
    fatal = failure = err = error = critical = exception = msg


def _writer(file: TextIO) -> Callable[..., _Writer]:
    return lambda *_: _Writer(file)


def _json(event: dict[str, Any], **_: Any) -> str:
    """Values that JSON does not have, as text."""
    return orjson.dumps(event, default=repr).decode()


def _add_trace_id(_logger: Any, _method: str, event: dict[str, Any]) -> dict[str, Any]:
    context = trace.get_current_span().get_span_context()
    if context.is_valid:
        event["trace_id"] = trace.format_trace_id(context.trace_id)
    return event


def _constant(**pairs: str | int) -> Any:
    def add(_logger: Any, _method: str, event: dict[str, Any]) -> dict[str, Any]:
        return {**event, **pairs}

    return add
