"""Whether one run is still there: a DELETE without an answer may have been done, one that was answered has been, for ever."""

from collections.abc import Iterator

from juinie.torture.findings import Kind
from juinie.torture.reader_history import Finding


class DeletionHistory:
    """`sent`: it may be gone. `gone_at`: since when it is known to be, by the answer to a DELETE or a 404 after one."""

    def __init__(self) -> None:
        self.sent = False
        self.gone_at: float | None = None

    def know(self, at: float) -> None:
        """Somebody was told that it is gone."""
        self.gone_at = at if self.gone_at is None else self.gone_at

    def serve(self, asked_at: float, at: float, limit_seconds: float) -> Iterator[Finding]:
        """Something of it came, to who asked then. A stream that was open before has a little time to end."""
        if self.gone_at is None:
            return
        if asked_at > self.gone_at:
            yield Kind.DELETED, 0, f"asked for {asked_at - self.gone_at:.1f} s after it was gone, and served"
        elif at - self.gone_at > limit_seconds:
            yield Kind.DELETED, 0, f"still served {at - self.gone_at:.1f} s after it was gone"
