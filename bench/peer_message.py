"""One of our events as a message in the outbox of faststream-outbox."""

import json
from uuid import UUID, uuid4

from juinie_shared.contracts.record import RunEventRecord, event_json_head
from juinie_shared.domain.ids import RunId, Seq, TenantId

_TYPE, _TIME = "TEXT_MESSAGE_CONTENT", "2026-01-01T00:00:00.000000Z"


def message(run: UUID, tenant: UUID, seq: int, data_bytes: int) -> tuple[bytes, str]:
    """Payload and headers (JSON): the very value that our record of the event carries, and our headers with an id of its own.

    Bytes by its `content-type`, as the peer would otherwise read the JSON only to write it again; that of ours is put in when it
    is sent.
    """
    value = event_json_head(seq, _TYPE) + _TIME.encode() + b'","data":"' + b"x" * (data_bytes - 2) + b'"}'
    record = RunEventRecord(RunId(run), TenantId(tenant), Seq(seq), _TYPE, _TIME, value, None)
    headers = {name: text.decode() for name, text in record.headers()}
    its_own = {"content-type": "application/octet-stream", "correlation_id": str(uuid4())}
    return value, json.dumps(headers | its_own)
