"""`@microsoft/fetch-event-source`, as it is, where it lives: in a browser, with a key in a header, across origins.

Its header makes the browser ask first (a preflight). It moves its cursor at the `id` line, before the frame is
complete, so a cut just there would skip an event; and it takes a clean end for success. The page of this test does
what the how-to tells its users to do about both.
"""

PAGE = "fetch-event-source.html"


async def test_sees_every_event_once_whatever_is_cut_and_stops_at_204(rough_ride, browser_page):
    client, proxy = await rough_ride(browser_page(PAGE))

    assert client.named("stopped") == [{"fact": "stopped", "status": 204}]
    preflights = [request for request in proxy.requests if request.startswith("options")]
    assert any("access-control-request-headers: authorization" in preflight for preflight in preflights)
    assert len(client.named("out of turn")) == 1


async def test_a_wrong_key_is_told_across_origins(api, stack, browser_page):
    url = f"{stack.gateway.url}/v1/runs/{await api.new_run()}/stream"

    async with browser_page(PAGE)(url, key="jn_wrong") as client:
        await client.until("stopped")

    assert client.facts[0] == {"fact": "stopped", "status": 401}
