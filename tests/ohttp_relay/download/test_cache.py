"""The download proxy's parts: cache, freshness, ranges."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from ohttp_relay.download.cache import DiskCache, StoredObject, object_name
from ohttp_relay.download.freshness import judge
from ohttp_relay.download.ranges import ByteRange, Unsatisfiable, parse_range

# Parts


def stored(name: str, size: int) -> StoredObject:
    return StoredObject(name, (("etag", '"x"'),), size, 0.0, 10.0, 0.0)


def test_the_cache_is_bounded_and_forgets_the_least_used(tmp_path: Path) -> None:
    cache = DiskCache(tmp_path / "c", capacity=250)
    for name in "abc":
        part = cache.part(name)
        part.write_bytes(bytes(100))
        cache.add(stored(name, 100), part)
        cache.find("a")
    assert cache.find("b") is None
    assert cache.find("a") == stored("a", 100)
    assert cache.total == 200
    assert (tmp_path / "c").stat().st_mode & 0o777 == 0o700
    left, used = cache.part("d"), cache.part("e")
    for part in (left, used):
        part.write_bytes(b"x")
    os.utime(left, (0, 0))  # by a process that died long ago; the other may be another worker's
    cache.body("a").write_bytes(b"short")
    again = DiskCache(tmp_path / "c", capacity=250)
    assert (left.exists(), used.exists()) == (False, True)
    assert again.find("a") is None
    assert again.find("c") == stored("c", 100)
    assert again.total == 100
    assert sorted(path.suffix for path in (tmp_path / "c").iterdir() if path.stem == "c") == [
        ".body",
        ".json",
    ]
    assert len(object_name("https://a.example/")) == 64


def test_workers_keep_within_the_capacity_together(tmp_path: Path) -> None:
    caches = [DiskCache(tmp_path / "c", capacity=1000) for _ in range(2)]
    for number in range(128):
        cache = caches[number % 2]
        part = cache.part(f"n{number}")
        part.write_bytes(bytes(100))
        cache.add(stored(f"n{number}", 100), part)
    bodies = list((tmp_path / "c").glob("*.body"))
    assert len(bodies) <= 20 + 10  # the capacity, and what one worker adds between two looks
    assert DiskCache(tmp_path / "c", capacity=1000).total == 100 * len(bodies)


@pytest.mark.parametrize(
    ("fields", "storable", "lifetime"),
    [
        ({}, True, 100),
        ({"cache-control": "max-age=10"}, True, 10),
        ({"cache-control": "max-age=10, s-maxage=20"}, True, 20),
        ({"cache-control": 'max-age="10"'}, True, 10),
        ({"cache-control": "no-cache"}, True, 0),
        ({"cache-control": "no-store"}, False, 100),
        ({"vary": "*"}, False, 100),
        ({"expires": "Thu, 01 Jan 1970 00:17:00 GMT"}, True, 20),
        ({"expires": "0"}, True, 0),
        ({"last-modified": "Thu, 01 Jan 1970 00:16:30 GMT"}, True, 1),
    ],
)
def test_freshness(fields: dict[str, str], storable: bool, lifetime: float) -> None:
    found = judge(200, tuple(fields.items()), 1000.0, 100.0)
    assert (found.storable, found.lifetime, found.age) == (storable, lifetime, 0.0)
    assert not judge(404, tuple(fields.items()), 1000.0, 100.0).storable


def test_age_counts_from_what_the_origin_says() -> None:
    fields = (("age", "7"), ("date", "Thu, 01 Jan 1970 00:16:35 GMT"))
    assert judge(200, fields, 1000.0, 100.0).age == 7
    assert judge(200, fields[1:], 1000.0, 100.0).age == 5


def test_ranges() -> None:
    assert parse_range("bytes=0-0", 10) == ByteRange(0, 1)
    assert parse_range("bytes=5-100", 10) == ByteRange(5, 10)
    assert parse_range("bytes=-100", 10) == ByteRange(0, 10)
    for text in (None, "", "bytes=", "bytes=-", "bytes=a-b", "bytes=5-4", "bytes=0-1,2-3", "x=0-1"):
        assert parse_range(text, 10) is None
    for text in ("bytes=10-", "bytes=-0"):
        with pytest.raises(Unsatisfiable):
            parse_range(text, 10)
