"""What a request may hold, handed over from the settings."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Limits:
    """Sizes in bytes of compact JSON text; `request_bytes` is counted after decompression. The last four are a tenant's,
    or a key's, unless it has its own."""

    request_bytes: int = 1024 * 1024
    event_bytes: int = 256 * 1024
    payload_bytes: int = 256 * 1024
    metadata_bytes: int = 16 * 1024
    events: int = 1000
    depth: int = 64
    name_chars: int = 256
    page_bytes: int = 4 * 1024 * 1024
    timeout_seconds: int = 86_400
    idle_timeout_seconds: int = 3600
    waiting_requests: int | None = None
    active_runs: int | None = None
    active_runs_of_key: int | None = None
    events_per_run: int | None = None
