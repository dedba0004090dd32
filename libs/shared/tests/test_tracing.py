"""Traces never stand in the way of the process that makes them."""

import socket
import threading

import pytest

from juinie_shared.runtime.tracing import LAST_SPANS_SECONDS, configure_tracing


def test_a_collector_that_never_answers_does_not_hold_up_the_end_of_the_process(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", f"http://127.0.0.1:{silent.getsockname()[1]}")
        provider = configure_tracing("juinie-test")
        provider.get_tracer("test").start_span("a").end()

        closing = threading.Thread(target=provider.shutdown)
        closing.start()
        closing.join(LAST_SPANS_SECONDS + 3)  # the exporter alone would try for ten

        assert not closing.is_alive()
