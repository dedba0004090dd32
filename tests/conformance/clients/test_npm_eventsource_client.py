"""npm `eventsource-client`, as it is: headers of its own, and only 204 stops it."""


async def test_sees_every_event_once_whatever_is_cut_and_stops_at_204(rough_ride, node_client):
    client, proxy = await rough_ride(node_client("eventsource-client.mjs"))

    assert client.named("stopped") == [{"fact": "stopped", "status": 204}]
    assert all("after_seq=2" in request for request in proxy.requests)
    assert all("\r\nlast-event-id: " in request for request in proxy.requests[1:])


async def test_closed_at_the_end_it_does_not_ask_again(api, stack, key, node_client):
    run_id, last_seq = await api.finished_run(("STEP", 1))
    url = f"{stack.gateway.url}/v1/runs/{run_id}/stream"

    async with node_client("eventsource-client.mjs")(url, key=key, closeAtEnd=True) as client:
        await client.until("ended")

    assert client.seqs == list(range(1, last_seq + 1))
    assert len(client.named("open")) == 1
