"""The Kafka record of a dead letter: the headers of the run event that could not be sent, and why.

The value is the event's JSON, or null where that is itself too large: then the API has it, by the headers' run and seq.
"""

from dataclasses import dataclass

from juinie_shared.contracts.record import Headers, RunEventRecord
from juinie_shared.contracts.record_bytes import packed

REASON_HEADER = "juinie_reason"


@dataclass(frozen=True, slots=True)
class DeadLetterRecord:
    """`with_value`: whether the event's JSON goes along."""

    event: RunEventRecord
    reason: str
    with_value: bool = True

    @property
    def key(self) -> bytes:
        return self.event.key

    @property
    def value(self) -> bytes | None:
        return self.event.value if self.with_value else None

    def headers(self) -> Headers:
        return [*self.event.headers(), (REASON_HEADER, self.reason.encode())]

    def packed(self) -> bytes:
        """As it lies in a batch, from its key on."""
        return packed(self.key, self.value, self.headers())
