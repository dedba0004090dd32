"""The data of the run events that Juinie itself writes, whichever service writes them.

JSON text that clients sent goes in as it is.
"""

import msgspec

from juinie_shared.domain.runs import RunStatus


def created_data(agent: str, thread_id: str | None, input_json: str | None, metadata_json: str) -> str:
    """`run.created`."""
    return _object(agent=agent, thread_id=thread_id, input=_raw(input_json), metadata=_raw(metadata_json))


def lease_expired_data(attempt: int) -> str:
    """`run.lease_expired`: the attempt whose lease ran out."""
    return _object(attempt=attempt)


def cancel_requested_data(reason: str | None) -> str:
    """`run.cancel_requested`."""
    return _object(reason=reason)


def finished_data(status: RunStatus, output_json: str | None, error_json: str | None) -> str:
    """`run.finished`."""
    return _object(status=status.value, output=_raw(output_json), error=_raw(error_json))


def _object(**members: object) -> str:
    return msgspec.json.encode(members).decode()


def _raw(text: str | None) -> msgspec.Raw | None:
    return None if text is None else msgspec.Raw(text.encode())
