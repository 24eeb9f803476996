"""The replay store that workers share."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ohttp_relay.errors import ConfigurationError, ReplayStoreFull
from ohttp_relay.gateway import SharedReplayCache

# The shared replay store


@pytest.fixture
def store(tmp_path: Path) -> Iterator[SharedReplayCache]:
    made = SharedReplayCache(tmp_path / "replay", window=10.0, capacity=50)
    yield made
    made.close()


def test_the_shared_store_remembers_over_processes_and_restarts(
    tmp_path: Path, store: SharedReplayCache
) -> None:
    key = os.urandom(16)
    assert not store.seen(key, 100.0)
    other = SharedReplayCache(tmp_path / "replay", window=10.0, capacity=50)
    assert other.seen(key, 109.0)
    assert other.seen(key, 111.0)
    assert not other.seen(key, 131.0)
    other.close()
    assert (tmp_path / "replay").stat().st_mode & 0o777 == 0o600
    with pytest.raises(ConfigurationError):
        SharedReplayCache(tmp_path / "replay", window=11.0, capacity=50)


def test_a_full_shared_store_refuses_rather_than_forgets(store: SharedReplayCache) -> None:
    keys = [os.urandom(16) for _ in range(51)]
    assert not any(store.seen(key, 0.0) for key in keys[:50])
    with pytest.raises(ReplayStoreFull):
        store.seen(keys[50], 5.0)
    assert all(store.seen(key, 5.0) for key in keys[:50])
    assert not store.seen(keys[50], 10.0)
    assert all(store.seen(key, 19.0) for key in keys)


@settings(max_examples=30)
@given(st.lists(st.tuples(st.integers(1, 20), st.floats(0, 15)), max_size=40))
def test_a_key_is_remembered_for_the_window_at_least(
    tmp_path_factory, steps: list[tuple[int, float]]
) -> None:
    folder = tmp_path_factory.mktemp("replay")
    with contextlib.closing(SharedReplayCache(folder / "r", window=10.0, capacity=50)) as store:
        now, first = 0.0, {}
        for number, wait in steps:
            now += wait
            known = store.seen(bytes([number]) * 16, now)
            assert known or now - first.get(number, float("-inf")) >= 10.0
            if not known:
                first[number] = now


def test_of_many_processes_one_is_first(tmp_path: Path) -> None:
    code = (
        "import sys; from ohttp_relay.gateway.shared_replay import SharedReplayCache\n"
        "s = SharedReplayCache(sys.argv[1], 100.0, 5000)\n"
        "print(sum(not s.seen(i.to_bytes(16, 'big'), 0.0) for i in range(1, 2001)))"
    )

    def one(_: int) -> int:
        argv = [sys.executable, "-c", code, str(tmp_path / "r")]
        return int(subprocess.run(argv, capture_output=True, check=True, text=True).stdout)

    with ThreadPoolExecutor(3) as pool:
        assert sum(pool.map(one, range(3))) == 2000
