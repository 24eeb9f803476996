"""The replay store that workers share."""

from __future__ import annotations

import contextlib
import fcntl
import itertools
import os
import resource
import signal
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


def accepted_by_processes(paths: list[Path], keys: int) -> int:
    """Return how many times a key was new, if each of several processes looks up the same keys."""
    code = (
        "import sys; from ohttp_relay.gateway.shared_replay import SharedReplayCache\n"
        "s = SharedReplayCache(sys.argv[1], 100.0, 50_000)\n"
        "print(sum(not s.seen(i.to_bytes(16, 'big'), 0.0) for i in range(int(sys.argv[2]))))"
    )

    def one(path: Path) -> int:
        argv = [sys.executable, "-c", code, str(path), str(keys)]
        return int(subprocess.run(argv, capture_output=True, check=True, text=True).stdout)

    with ThreadPoolExecutor(len(paths)) as pool:
        return sum(pool.map(one, paths))


def test_of_many_processes_one_is_first(tmp_path: Path) -> None:
    assert accepted_by_processes([tmp_path / "shared"] * 3, 5000) == 5000
    assert accepted_by_processes([tmp_path / "own", tmp_path / "other"], 5000) == 10_000  # the control


# The shards


def test_shards_together_hold_the_keys_that_were_asked_for_but_a_few_percent(tmp_path: Path) -> None:
    with contextlib.closing(SharedReplayCache(tmp_path / "r", 10.0, 30_000)) as store:
        keys = [at.to_bytes(16, "big") for at in range(30_000)]
        assert not any(store.seen(key, 0.0) for key in keys[:28_000])
        with pytest.raises(ReplayStoreFull):
            for key in [*keys[28_000:], *(bytes([at]) * 16 for at in range(1, 250))]:
                store.seen(key, 0.0)
        assert all(store.seen(key, 9.0) for key in keys[:28_000])


def test_workers_that_look_into_different_shards_do_not_wait_for_each_other(tmp_path: Path) -> None:
    with contextlib.closing(SharedReplayCache(tmp_path / "r", 10.0, 100_000)) as store:
        read, write = os.pipe()
        holder = os.fork()
        if holder == 0:  # a worker that holds the lock of one shard
            fcntl.lockf(store._handle, fcntl.LOCK_EX, 1, 0)
            os.write(write, b"locked")
            signal.pause()
        try:
            os.read(read, 6)
            with pytest.raises(BlockingIOError):  # the control: that shard is locked
                fcntl.lockf(store._handle, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, 0)
            for shard in range(1, store._shards):
                fcntl.lockf(store._handle, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, shard)
                fcntl.lockf(store._handle, fcntl.LOCK_UN, 1, shard)
        finally:
            os.kill(holder, signal.SIGKILL)
            os.waitpid(holder, 0)
            os.close(read)
            os.close(write)


# Workers that are killed


class Lethal:
    """A memory of the store, to which this process makes `writes` more writes: the next one kills it."""

    def __init__(self, memory, writes: list[int]) -> None:
        self.memory, self.writes = memory, writes

    def __getitem__(self, at):
        return self.memory[at]

    def __setitem__(self, at, value) -> None:
        if not self.writes[0]:
            if isinstance(at, slice):  # of a table, half is written
                half = (at.stop - at.start) // 2
                self.memory[at.start : at.start + half] = value[:half]
            os.kill(os.getpid(), signal.SIGKILL)
        self.writes[0] -= 1
        self.memory[at] = value


def killed_at(store: SharedReplayCache, writes: int, key: bytes, now: float) -> bool:
    """Look up `key` in a process that is killed after `writes` writes; tell whether it was."""
    child = os.fork()
    if child == 0:
        left = [writes]
        store._words, store._starts, store._map = (
            Lethal(memory, left) for memory in (store._words, store._starts, store._map)
        )
        with contextlib.suppress(ReplayStoreFull):
            store.seen(key, now)
        os._exit(0)
    _, status = os.waitpid(child, 0)
    return os.WIFSIGNALED(status)


@pytest.mark.parametrize("now", [119.5, 120.0, 128.5, 141.0])
def test_no_replay_passes_after_a_worker_was_killed_at_any_write(tmp_path: Path, now: float) -> None:
    old, young = [bytes([at]) * 16 for at in range(1, 9)], [bytes([at]) * 16 for at in range(11, 19)]
    kills = 0
    for writes in range(20):
        with contextlib.closing(SharedReplayCache(tmp_path / str(writes), 10.0, 20)) as store:
            assert not any(store.seen(key, 100.0) for key in old)
            assert not any(store.seen(key, 110.0) for key in young[:4])
            assert not any(store.seen(key, 119.0) for key in young[4:])
            killed = killed_at(store, writes, b"k" * 16, now)
            kills += killed
            remembered = [*(young[:4] if now < 120.0 else ()), *(young[4:] if now < 129.0 else ())]
            assert all(store.seen(key, now) for key in remembered)
            served = [store.seen(b"k" * 16, now) for _ in range(2)]
            assert served == [not killed, True]  # its request was not served: it may come again, once
            for at in range(40):  # what is over the limit is refused; nothing is searched for ever
                with contextlib.suppress(ReplayStoreFull):
                    assert not store.seen(bytes([150 + at]) * 16, now)
            assert store.seen(b"k" * 16, now + 9.0)
            if not killed:
                break
    else:
        pytest.fail("the look-up never ended")
    assert kills >= 2


def test_what_a_killed_worker_accepted_is_refused_by_the_others(tmp_path: Path) -> None:
    with contextlib.closing(SharedReplayCache(tmp_path / "r", 100.0, 50_000)) as store:
        accepted: set[int] = set()
        for _ in range(5):
            read, write = os.pipe()
            child = os.fork()
            if child == 0:
                for at in itertools.count():
                    if not store.seen(at.to_bytes(16, "big"), 0.0):
                        os.write(write, at.to_bytes(4, "big"))
            os.close(write)
            with os.fdopen(read, "rb") as acknowledged:
                new = [int.from_bytes(acknowledged.read(4), "big") for _ in range(300)]
                os.kill(child, signal.SIGKILL)  # at any point of its next look-ups
                rest = acknowledged.read()
            os.waitpid(child, 0)
            new += [int.from_bytes(rest[at : at + 4], "big") for at in range(0, len(rest) // 4 * 4, 4)]
            assert accepted.isdisjoint(new)
            accepted.update(new)
        assert all(store.seen(at.to_bytes(16, "big"), 0.0) for at in accepted)
        assert not store.seen(b"x" * 16, 0.0)  # the control; and the locks are free


# Its size


def resident(path: Path) -> int:
    """Return how many bytes of a mapped file this process has touched."""
    lines = Path("/proc/self/smaps").read_text().splitlines()
    start = next(at for at, line in enumerate(lines) if line.endswith(str(path)))
    rss = next(line for line in lines[start:] if line.startswith("Rss:"))
    return int(rss.split()[1]) * 1024


def test_a_store_that_holds_nothing_is_small_and_neither_written_nor_in_memory(tmp_path: Path) -> None:
    path = tmp_path / "r"
    with contextlib.closing(SharedReplayCache(path)) as store:
        assert path.stat().st_size == len(store._map) < 6 << 20
        idle = resident(path)
        assert idle <= 64 << 10  # the header, with what the system reads ahead
        for at in range(2000):
            store.seen(at.to_bytes(16, "big"), 0.0)
        assert resident(path) > idle + (1 << 20)  # the control


def test_there_is_no_store_without_space_for_it(tmp_path: Path) -> None:
    _, hard = limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, hard))
    try:
        with pytest.raises(ConfigurationError, match="no space for the replay file r of"):
            SharedReplayCache(tmp_path / "r", 10.0, 50_000)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    with contextlib.closing(SharedReplayCache(tmp_path / "r", 10.0, 50_000)) as store:
        assert not store.seen(b"k" * 16, 0.0)


def test_a_file_whose_maker_was_killed_before_its_header_is_made_anew(tmp_path: Path) -> None:
    (tmp_path / "r").write_bytes(bytes(5000))
    with contextlib.closing(SharedReplayCache(tmp_path / "r", 10.0, 50_000)) as store:
        assert not store.seen(b"k" * 16, 0.0)


@pytest.mark.parametrize(("window", "capacity"), [(11.0, 50), (10.0, 51), (10.0, 60_000)])
def test_a_store_of_other_settings_is_refused_with_what_to_do(
    tmp_path: Path, store: SharedReplayCache, window: float, capacity: int
) -> None:
    with pytest.raises(
        ConfigurationError, match="replay was made with another window or number of keys: use"
    ):
        SharedReplayCache(tmp_path / "replay", window, capacity)
