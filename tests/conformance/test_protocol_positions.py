"""Where a stream starts: Last-Event-ID over after_seq, 204, reset, gap, and what is no position (protocol 2.8, 5.1, 5.4, 5.7)."""

import pytest

MALFORMED = ["abc", "1.5", "-2", "+1", "1e3", "0x1", "1 2", "9" * 19, "null"]


@pytest.mark.parametrize("after_seq", range(6))
@pytest.mark.parametrize("how", ["after_seq", "last_event_id"])
async def test_resume_after_each_event(api, watch, how, after_seq):
    run_id, last_seq = await api.finished_run(("A", 1), ("A", 2), ("A", 3))
    assert last_seq == 6

    async with watch(run_id, **{how: after_seq}) as watcher:
        await watcher.until_closed()

    assert watcher.seqs == list(range(after_seq + 1, last_seq + 1))
    assert watcher.ended


@pytest.mark.parametrize("start", ["0", "-1", ""])
@pytest.mark.parametrize("how", ["after_seq", "last_event_id"])
async def test_ways_to_say_the_start(api, watch, how, start):
    async with watch(await api.new_run(), **{how: start}) as watcher:
        await watcher.until_caught_up()

    assert watcher.seqs == [1]


async def test_last_event_id_wins_over_after_seq(api, watch):
    run_id, last_seq = await api.finished_run(("A", 1), ("A", 2))

    async with watch(run_id, after_seq=1, last_event_id=3) as watcher:
        await watcher.until_closed()

    assert watcher.seqs == list(range(4, last_seq + 1))


async def test_an_empty_last_event_id_says_nothing(api, watch):
    run_id, last_seq = await api.finished_run(("A", 1))

    async with watch(run_id, after_seq=2, last_event_id="") as watcher:
        await watcher.until_closed()

    assert watcher.seqs == list(range(3, last_seq + 1))


async def test_last_event_id_wins_over_tail(api, watch):
    run_id = await api.new_run()
    await api.add(run_id, ("A", 1))

    async with watch(run_id, after_seq="tail", last_event_id=1) as watcher:
        await watcher.until_caught_up()

    assert watcher.seqs == [2, 3]


@pytest.mark.parametrize("how", ["after_seq", "last_event_id"])
async def test_the_last_seq_of_a_finished_run_is_204_without_a_body(api, watch, how):
    run_id, last_seq = await api.finished_run(("A", 1))

    async with watch(run_id, **{how: last_seq}) as watcher:
        assert (watcher.status, watcher.body) == (204, b"")
        assert "content-type" not in watcher.headers


async def test_the_last_seq_of_an_open_run_waits_for_more(api, watch):
    run_id = await api.new_run()
    async with watch(run_id, last_event_id=1) as watcher:
        await watcher.until_caught_up()
        last_seq = await api.add(run_id, ("A", 1))
        await watcher.until_seq(last_seq)

    assert watcher.seqs == [2, 3]


@pytest.mark.parametrize("how", ["after_seq", "last_event_id"])
@pytest.mark.parametrize("finished", [True, False], ids=["finished", "open"])
async def test_beyond_the_last_seq_is_a_reset_and_everything(api, watch, how, finished):
    run_id = await api.new_run()
    last_seq = await (api.end(run_id) if finished else api.add(run_id, ("A", 1)))

    async with watch(run_id, **{how: "9" * 18}) as watcher:
        await watcher.until_seq(last_seq)
        await watcher.until_caught_up()

    assert watcher.controls[0].event == "stream.reset"
    assert watcher.controls[0].json == {"last_seq": last_seq}
    assert watcher.control("stream.caught_up") == {"last_seq": last_seq}
    assert watcher.seqs == list(range(1, last_seq + 1))


@pytest.mark.parametrize("how", ["after_seq", "last_event_id"])
async def test_before_what_is_kept_is_a_gap_and_what_is_kept(api, watch, forget_events_before, how):
    run_id, last_seq = await api.finished_run(("A", 1), ("A", 2), ("A", 3))
    await forget_events_before(run_id, 4)

    async with watch(run_id, **{how: 1}) as watcher:
        await watcher.until_closed()

    assert watcher.controls[0].event == "stream.gap"
    assert watcher.controls[0].json == {"retained_from_seq": 4}
    assert watcher.seqs == list(range(4, last_seq + 1))
    assert watcher.ended


async def test_just_before_what_is_kept_is_no_gap(api, watch, forget_events_before):
    run_id, last_seq = await api.finished_run(("A", 1), ("A", 2), ("A", 3))
    await forget_events_before(run_id, 4)

    async with watch(run_id, after_seq=3) as watcher:
        await watcher.until_closed()

    assert watcher.control("stream.gap") is None
    assert watcher.seqs == list(range(4, last_seq + 1))


@pytest.mark.parametrize("position", MALFORMED)
@pytest.mark.parametrize("how", ["after_seq", "last_event_id"])
async def test_what_is_no_position_is_400(api, watch, how, position):
    async with watch(await api.new_run(), **{how: position}) as watcher:
        assert (watcher.status, watcher.problem["code"]) == (400, "bad_position")


async def test_tail_is_no_last_event_id(api, watch):
    async with watch(await api.new_run(), last_event_id="tail") as watcher:
        assert watcher.status == 400


async def test_a_client_that_is_dropped_again_and_again_misses_nothing(api, watch):
    run_id = await api.new_run()
    seen, watcher = [], watch(run_id)
    for number in range(15):
        async with watcher:
            last_seq = await api.add(run_id, ("A", number), ("B", number))
            await watcher.until_seq(last_seq)
        await api.add(run_id, ("C", number))
        seen += watcher.seqs
        watcher = watcher.resume()
    last_seq = await api.end(run_id)
    async with watcher:
        await watcher.until_closed()

    assert seen + watcher.seqs == list(range(1, last_seq + 1))
