"""What pydantic finds, as faults of ours: a JSON Pointer, a stable code, and no piece of the input."""

import re

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from juinie_shared.runtime.problems import MOST_FAULTS, Fault

TOO_LARGE = frozenset({"value_too_large"})
"""Codes that make the answer a 413."""

UNKNOWN = "unknown_field"

_HARMLESS_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_-]{0,39}")

_SPOKEN = {
    "missing": ("missing", "Is required."),
    "extra_forbidden": (UNKNOWN, "There is no such field."),
    "bool_type": ("bad_value", "Is true or false."),
    "bool_parsing": ("bad_value", "Is true or false."),
    "int_type": ("bad_value", "Is an integer."),
    "int_parsing": ("bad_value", "Is an integer."),
    "int_parsing_size": ("bad_value", "Is too large."),
    "int_from_float": ("bad_value", "Is an integer."),
    "string_type": ("bad_value", "Is a string."),
    "float_type": ("bad_value", "Is a number."),
    "list_type": ("bad_value", "Is an array."),
    "model_type": ("bad_value", "Is an object."),
    "model_attributes_type": ("bad_value", "Is an object."),
}


def faults_of(error: ValidationError) -> list[Fault]:
    """All faults, in the order of the fields; of more than are told, one more than those."""
    found = error.errors(include_url=False, include_input=False)
    return [_fault(detail) for detail in found[: MOST_FAULTS + 1]]


def _fault(detail: ErrorDetails) -> Fault:
    code, text = _SPOKEN.get(detail["type"]) or _ours_or_range(detail)
    return Fault(_pointer(detail), code, text)


def _ours_or_range(detail: ErrorDetails) -> tuple[str, str]:
    """Codes of our own validators pass; pydantic's of ranges are told in its words, which hold the limit alone."""
    kind = detail["type"]
    if kind in _RANGES:
        return "bad_value", detail["msg"]
    if "ctx" in detail or kind in _OURS:
        return kind, detail["msg"]
    return "bad_value", "Has another form."


_RANGES = frozenset(
    {
        "greater_than_equal",
        "less_than_equal",
        "too_short",
        "too_long",
        "literal_error",
        "enum",
        "finite_number",
    }
)

_OURS = frozenset(
    {
        "bad_type",
        "bad_types",
        "reserved_type",
        "bad_time",
        "bad_run_id",
        "not_an_object",
        "control_character",
    }
)


def _pointer(detail: ErrorDetails) -> str:
    """The place, as RFC 6901 has it. A name that a client made up stays out, unless it looks like one."""
    parts = list(detail["loc"])
    if detail["type"] == "extra_forbidden" and not _HARMLESS_NAME.fullmatch(str(parts[-1])):
        parts.pop()
    return "".join(f"/{part}" for part in parts)
