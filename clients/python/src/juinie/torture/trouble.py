"""What gets in the way of a torture ends it, and is told beside what was found: no finding is lost to it."""

import logging
from collections.abc import Coroutine
from typing import Any, cast

from juinie.errors import JuinieError

_log = logging.getLogger(__name__)


async def told_what_is_in_the_way(going: Coroutine[Any, Any, None]) -> str | None:
    """To its end, or to what is in the way, which is given. What nobody thought of is logged besides, with its traceback."""
    try:
        await going
    except Exception as error:  # noqa: BLE001 - whatever it is, it is told, and what was found stays
        if not isinstance(_first(error), (JuinieError, OSError)):
            _log.error("the torture was broken off", exc_info=error)
        return first_of(error)
    return None


def first_of(error: BaseException) -> str:
    """What went wrong, in a line; of several things the first."""
    first = _first(error)
    return f"{type(first).__name__}: {first}"


def _first(error: BaseException) -> BaseException:
    while isinstance(error, BaseExceptionGroup):
        error = cast("BaseException", error.exceptions[0])
    return error
