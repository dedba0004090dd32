"""Documents that are made from the code, so that they cannot say something else.

python docs/generate.py settings > docs/reference/settings.md
"""

import sys
from collections.abc import Callable
from typing import Any, get_args

from pydantic import SecretStr
from pydantic.fields import FieldInfo

from juinie_api.settings import Settings as ApiSettings
from juinie_publisher.settings import Settings as PublisherSettings
from juinie_shared.runtime.settings import EdgeSettings, ServiceSettings
from juinie_stream_gateway.settings import Settings as StreamGatewaySettings

SERVICES: dict[str, type[ServiceSettings]] = {
    "api": ApiSettings,
    "publisher": PublisherSettings,
    "stream-gateway": StreamGatewaySettings,
}

SETTINGS_HEAD = """\
# Settings

All settings come from the environment. Each service reads them once, at its start; if any is missing or wrong, it names all of them in
one line and exits with 1. No message ever shows the value of a secret.

This page is generated from the settings classes (`make docs`).
"""

SETTINGS_TAIL = """\
## Traces

The standard `OTEL_*` settings apply to every service, as the OpenTelemetry SDK reads them: `OTEL_EXPORTER_OTLP_ENDPOINT` (without it
nothing is exported), `OTEL_EXPORTER_OTLP_HEADERS`, `OTEL_SERVICE_NAME`, `OTEL_TRACES_SAMPLER`, `OTEL_RESOURCE_ATTRIBUTES`. See
[traces](../operations/traces.md).
"""


def settings_page() -> str:
    """Every setting once: what all services take, what those with a public port take, what is each one's own."""
    sections = [
        _section("Every service", ServiceSettings, without=None),
        _section("api and stream-gateway", EdgeSettings, without=ServiceSettings),
        *(_section(name, cls, without=_shared_base(cls)) for name, cls in SERVICES.items()),
    ]
    return "\n".join([SETTINGS_HEAD, *sections, SETTINGS_TAIL])


def _shared_base(cls: type[ServiceSettings]) -> type[ServiceSettings]:
    return EdgeSettings if issubclass(cls, EdgeSettings) else ServiceSettings


def _section(title: str, cls: type[ServiceSettings], without: type[ServiceSettings] | None) -> str:
    known = {name: _row(field) for name, field in without.model_fields.items()} if without else {}
    rows = [row for name, field in cls.model_fields.items() if (row := _row(field)) != known.get(name)]
    head = "| setting | value | default | |\n|---|---|---|---|\n"
    return f"## {title}\n\n{head}" + "".join(rows)


def _row(field: FieldInfo) -> str:
    cells = [f"`{field.validation_alias}`", _kind(field.annotation), _default(field), field.description or ""]
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |\n"


def _kind(annotation: Any) -> str:
    """What may be given, in words for the one who sets it."""
    annotation = getattr(annotation, "__value__", annotation)
    alternatives = [part for part in get_args(annotation) if part is not type(None)]
    if alternatives and all(isinstance(part, str) for part in alternatives):
        return " · ".join(f"`{part}`" for part in alternatives)
    if annotation is SecretStr or SecretStr in alternatives:
        return "text, secret"
    if len(alternatives) == 1:
        return _kind(alternatives[0])
    return {int: "whole number", float: "number", bool: "`true` · `false`", str: "text"}.get(
        annotation, "list"
    )


def _default(field: FieldInfo) -> str:
    if field.is_required():
        return "**required**"
    value = field.get_default(call_default_factory=True)
    return "none" if value is None or value in ((), "") else f"`{value}`"


PAGES: dict[str, Callable[[], str]] = {"settings": settings_page}

if __name__ == "__main__":
    sys.stdout.write(PAGES[sys.argv[1]]())
