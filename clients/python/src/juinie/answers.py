"""What the API answers, read with care: at a wrong address something else may answer, and that with 200."""

from collections.abc import Mapping
from typing import Any, cast

import httpx

from juinie.errors import unreadable
from juinie.events import decoded

RUN: Mapping[str, type] = {"run_id": str, "status": str, "last_seq": int, "created_at": str}
APPENDED: Mapping[str, type] = {"first_seq": int, "last_seq": int}
CLAIMED: Mapping[str, type] = {"run": dict, "lease": dict}
LEASE: Mapping[str, type] = {"token": str, "attempt": int}
PAGE: Mapping[str, type] = {"events": list, "next_after_seq": int, "up_to_date": bool}
TOKEN: Mapping[str, type] = {"token": str}


def read_object(answer: httpx.Response, fields: Mapping[str, type]) -> dict[str, Any]:
    """An answer's JSON object.

    Raises:
        Unreadable: it is none, or has not these fields.
    """
    try:
        found = decoded(answer.content)
    except ValueError as error:
        media = answer.headers.get("content-type", "something")
        raise unreadable(answer.status_code, f"{media} instead of JSON") from error
    return checked(answer, found, fields)


def checked(answer: httpx.Response, found: Any, fields: Mapping[str, type]) -> dict[str, Any]:
    """`found`, a part of an answer, if it is an object with these fields. Raises as `read_object`."""
    read = cast("dict[str, Any]", found) if isinstance(found, dict) else {}
    if wrong := [name for name, kind in fields.items() if not isinstance(read.get(name), kind)]:
        raise unreadable(answer.status_code, f"JSON without {', '.join(wrong)}")
    return read
