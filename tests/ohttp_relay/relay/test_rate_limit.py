"""Rate limits."""

from __future__ import annotations

from ohttp_relay.relay import RateLimit


def test_rate_limits_keep_no_addresses_and_forget_at_the_windows_end() -> None:
    now = 0.0
    limit = RateLimit(2, seconds=10.0, clients=3, clock=lambda: now)
    assert [limit.allows("192.0.2.1") for _ in range(3)] == [True, True, False]
    assert [limit.allows(a) for a in ("2001:db8::1", "2001:db8::2", "2001:db8::3")] == [True, True, False]
    assert limit.allows("192.0.2.2")
    assert not limit.allows("192.0.2.3")  # more clients than are told apart
    assert limit.retry_after == 11
    kept = b"".join(limit._counts)
    assert len(kept) == 24
    assert b"\xc0\x00\x02" not in kept
    key = limit._key
    now = 10.0
    assert limit.allows("192.0.2.1")
    assert limit.allows(None)
    assert limit._key != key
