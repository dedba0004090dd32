"""What is tried again and again, for ever: each failure is counted, and each change told once."""

from collections.abc import Callable
from types import TracebackType

from juinie_shared.domain.errors import Transient


class Tries:
    """`with tries:` around each try. What is Transient ends there, and the next try comes."""

    def __init__(
        self, report: Callable[[Transient | None], None], count_failure: Callable[[], None] = lambda: None
    ) -> None:
        """`report` hears of the first failure in a row, and by None of the first success after it."""
        self._report, self._count_failure = report, count_failure
        self.failing = False

    def __enter__(self) -> None:
        pass

    def __exit__(
        self, _kind: type[BaseException] | None, error: BaseException | None, _trace: TracebackType | None
    ) -> bool:
        if error is not None and not isinstance(error, Transient):
            return False
        if error is not None:
            self._count_failure()
        if self.failing != (error is not None):
            self._report(error)
        self.failing = error is not None
        return True
