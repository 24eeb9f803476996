"""The Date window and the cache of requests seen."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ohttp_relay.errors import DateRejected, ReplayedRequest, ReplayStoreFull
from ohttp_relay.gateway import ReplayCache, ReplayGuard
from ohttp_relay.gateway.replay import replay_key
from ohttp_relay.transport.dates import format_date, parse_date


@given(st.lists(st.tuples(st.binary(min_size=1, max_size=1), st.floats(0, 30)), max_size=60))
def test_a_key_is_remembered_for_the_window_at_least(steps: list[tuple[bytes, float]]) -> None:
    cache, now = ReplayCache(window=20.0), 0.0
    first: dict[bytes, float] = {}
    for key, wait in steps:
        now += wait
        known = cache.seen(key, now)
        age = now - first.get(key, float("-inf"))
        assert known or age >= 20.0
        if not known:
            first[key] = now


def test_a_full_cache_refuses_rather_than_forgets() -> None:
    cache = ReplayCache(window=10.0, capacity=2)
    assert not cache.seen(b"a", 0)
    assert not cache.seen(b"b", 0)
    with pytest.raises(ReplayStoreFull):
        cache.seen(b"c", 5)
    assert cache.seen(b"a", 5)
    assert not cache.seen(b"c", 10)
    assert cache.seen(b"b", 11)


def test_dates_are_read_and_written() -> None:
    assert format_date(784111777.9) == "Sun, 06 Nov 1994 08:49:37 GMT"
    assert parse_date("Sun, 06 Nov 1994 08:49:37 GMT") == 784111777
    for bad in ("", "x", "Sun, 99 Nov 1994 08:49:37 GMT", "0"):
        assert parse_date(bad) is None


async def test_the_window_reaches_both_ways_and_two_seconds_are_no_trouble() -> None:
    guard = ReplayGuard.in_memory(tolerance=5.0)
    for i, offset in enumerate((-5, -2, 0, 2, 5)):
        guard.check(bytes([i]), format_date(1000 + offset), 1000)
    for offset in (-6, 6):
        with pytest.raises(DateRejected):
            guard.check(b"x", format_date(1000 + offset), 1000)
    with pytest.raises(DateRejected):
        guard.check(b"x", "garbage", 1000)


async def test_no_replay_passes_at_any_time_a_date_could_be_accepted() -> None:
    guard = ReplayGuard.in_memory(tolerance=5.0)
    date = format_date(1005)
    guard.check(b"enc", date, 1000)
    for now in range(1000, 1030):
        with pytest.raises((ReplayedRequest, DateRejected)):
            guard.check(b"enc", date, now)


async def test_requests_without_a_date_are_remembered_long_or_refused() -> None:
    guard = ReplayGuard.in_memory(undated_window=1000.0)
    guard.check(b"enc", None, 0)
    with pytest.raises(ReplayedRequest):
        guard.check(b"enc", None, 999)
    with pytest.raises(DateRejected):
        ReplayGuard.in_memory().check(b"enc", None, 0)


async def test_a_store_may_be_asynchronous() -> None:
    class Store:
        def __init__(self) -> None:
            self.keys: set[bytes] = set()

        async def seen(self, key: bytes, now: float) -> bool:
            assert len(key) == 16
            known = key in self.keys
            self.keys.add(key)
            return known

    guard = ReplayGuard(Store())
    first, second = (guard.check(b"enc", format_date(0), 0) for _ in range(2))
    assert first is not None
    assert second is not None
    await first
    with pytest.raises(ReplayedRequest):
        await second
    assert replay_key(b"enc") != replay_key(b"end")
