"""The browser's own EventSource, in Chromium, on a page of another origin, with a stream token in its address."""


async def test_sees_every_event_once_whatever_is_cut_and_stops_at_204(rough_ride, browser_page):
    client, proxy = await rough_ride(_with_token(browser_page("eventsource.html")))

    assert client.named("stopped")
    assert all("\r\norigin: http://localhost:" in request for request in proxy.requests)
    assert all("after_seq=2" in request for request in proxy.requests)
    assert all("\r\nlast-event-id: " in request for request in proxy.requests[1:])


async def test_closed_at_the_end_it_does_not_ask_again(api, stack, browser_page):
    run_id, last_seq = await api.finished_run(("STEP", "ä\u2028 ✂"))
    start = _with_token(browser_page("eventsource.html"))

    async with start(_stream(stack, run_id), token=await api.stream_token(run_id), closeAtEnd=True) as client:
        await client.until("stream.end")

    assert client.seqs == list(range(1, last_seq + 1))
    assert client.events[2]["data"] == "ä\u2028 ✂"
    assert len(client.named("open")) == 1


async def test_a_forged_token_stops_it_at_once(api, stack, browser_page):
    run_id = await api.new_run()
    forged = (await api.stream_token(run_id))[:-4] + "AAAA"

    async with _with_token(browser_page("eventsource.html"))(_stream(stack, run_id), token=forged) as client:
        await client.until("stopped")

    assert not client.named("open")


async def test_a_page_of_another_origin_can_read_why_it_was_refused(api, stack, browser_page):
    run_id = await api.new_run()
    headers = {"Authorization": "Bearer jn_wrong"}

    async with browser_page("fetch.html")(_stream(stack, run_id), headers=headers) as client:
        await client.until("answer")

    assert client.facts[0] == {"fact": "answer", "status": 401, "code": "unauthorized"}


def _stream(stack, run_id):
    return f"{stack.gateway.url}/v1/runs/{run_id}/stream"


def _with_token(start):
    """EventSource has no headers: the credential is part of the address."""

    def started(url, token, **order):
        return start(f"{url}{'&' if '?' in url else '?'}token={token}", **order)

    return started
