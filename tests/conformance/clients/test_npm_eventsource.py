"""npm `eventsource`, as it is: the browser's EventSource in Node, with the key in a header."""


async def test_sees_every_event_once_whatever_is_cut_and_stops_at_204(rough_ride, node_client):
    client, proxy = await rough_ride(node_client("eventsource.mjs"))

    assert client.named("stopped") == [{"fact": "stopped", "status": 204}]
    assert all("after_seq=2" in request for request in proxy.requests)
    assert all("\r\nlast-event-id: " in request for request in proxy.requests[1:])


async def test_closed_at_the_end_it_does_not_ask_again(api, stack, key, node_client):
    run_id, last_seq = await api.finished_run(("STEP", 1))
    url = f"{stack.gateway.url}/v1/runs/{run_id}/stream"

    async with node_client("eventsource.mjs")(url, key=key, closeAtEnd=True) as client:
        await client.until("ended")

    assert client.seqs == list(range(1, last_seq + 1))
    assert [fact["fact"] for fact in client.facts[-2:]] == ["stream.end", "ended"]


async def test_a_wrong_key_stops_it_with_401(api, stack, node_client):
    url = f"{stack.gateway.url}/v1/runs/{await api.new_run()}/stream"

    async with node_client("eventsource.mjs")(url, key="jn_wrong") as client:
        await client.until("stopped")

    assert client.facts[0] == {"fact": "stopped", "status": 401}
