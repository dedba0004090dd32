"""What a peer relays is what we would have relayed."""

import json
from collections.abc import Callable
from types import ModuleType
from uuid import UUID

from juinie_shared.contracts.record import read_record

RUN, TENANT = UUID("0193e7a0-0000-7000-8000-000000000001"), UUID("0193e7a0-0000-7000-8000-000000000002")


def test_a_message_of_the_peers_outbox_is_one_of_our_records_in_other_clothes(
    bench_module: Callable[[str], ModuleType],
):
    payload, text = bench_module("peer_message").message(RUN, TENANT, 7, 200)
    headers = json.loads(text) | {"content-type": "application/json"}
    record = read_record(
        str(RUN).encode(), payload, [(name, value.encode()) for name, value in headers.items()]
    )
    assert (record.run_id, record.tenant_id, record.seq) == (RUN, TENANT, 7)
    assert record.value == payload
    assert len(json.loads(payload)["data"]) == 198
