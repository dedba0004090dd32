"""When Kafka is told to gather."""

from typing import Any

from juinie_stream_gateway.edges.linger import (
    GATHERED_BYTES,
    GATHERING_POLL_MS,
    MOST_RECORDS,
    REST_POLL_MS,
    Linger,
)

AT_ONCE, GATHERING = (250, 1), (10, GATHERED_BYTES)


class Fetcher:
    """As much of aiokafka's as the linger reaches for."""

    def __init__(self) -> None:
        self._fetch_max_wait_ms, self._fetch_min_bytes = AT_ONCE
        self._records: dict[Any, Any] = {}

    @property
    def asks(self) -> tuple[int, int]:
        return self._fetch_max_wait_ms, self._fetch_min_bytes


class Consumer:
    """Each poll takes so many seconds and brings so many records."""

    def __init__(self) -> None:
        self._fetcher = Fetcher()
        self.now = 100.0
        self.next = (0.0, 0)

    async def getmany(self, timeout_ms: int, max_records: int) -> dict[str, list[object]]:
        assert timeout_ms in {REST_POLL_MS, GATHERING_POLL_MS}
        assert max_records == MOST_RECORDS
        seconds, count = self.next
        self.now += seconds
        return {"partition": [object()] * count} if count else {}


async def test_what_a_fetch_asks_for_follows_how_long_records_let_themselves_be_waited_for() -> None:
    consumer = Consumer()
    linger = Linger(consumer, 0.010, clock=lambda: consumer.now)
    for waited, count, asked in [
        (0.500, 1, AT_ONCE),
        (0.019, 1, GATHERING),
        (0.010, 200, GATHERING),
        (0.000, 500, GATHERING),
        (0.100, 0, AT_ONCE),
        (0.021, 1, AT_ONCE),
        (0.001, 1, GATHERING),
    ]:
        consumer.next = waited, count
        await linger.poll()
        assert consumer._fetcher.asks == asked
        assert linger.gathers == (asked == GATHERING)
        consumer.now += 10.0  # what handing on takes is no rest


async def test_a_linger_of_none_never_gathers() -> None:
    consumer = Consumer()
    linger = Linger(consumer, 0.0, clock=lambda: consumer.now)
    for consumer.next in [(0.0, 1), (0.0, 500), (1.0, 0), (0.5, 1)]:
        await linger.poll()
        assert consumer._fetcher.asks == AT_ONCE
