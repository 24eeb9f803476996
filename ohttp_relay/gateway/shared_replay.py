"""A replay store that all workers of a gateway share and that outlives them: hash tables in a mapped file.

The keys are spread over shards.  A shard is a small store of its own: a lock, the time of its generation, and
two open-addressed tables, one for each generation of `window` seconds.  So two workers wait for each other only
when both look into the same shard at the same time.

A process may be killed between any two instructions.  The system then frees the lock that it held, and what it
wrote is right at each step: a request is served only after its key was written, a place is counted before it is
used, and a generation's time is moved before its tables change places.

The file holds keyed hashes of encapsulated keys, 8 bytes each, and nothing else of a request.  Its space is
reserved when it is made; pages are written only when keys arrive.
"""

from __future__ import annotations

import fcntl
import hashlib
import mmap
import os
import struct
from pathlib import Path
from typing import Final

from ohttp_relay.errors import ConfigurationError, ReplayStoreFull

DEFAULT_RATE: Final = 2_000
"""Requests a second that a store has room for by default."""

_MAGIC: Final = b"OHTTPRC2"
_HEADER: Final = struct.Struct(
    "=8s16sQQd"
)  # magic, seed, shards, limit, window; of this machine's byte order
_STATES: Final = 8  # in words of 8 bytes; then four words a shard: start of the generation, table, two counts
_TABLES: Final = 512
_MOST_SHARDS: Final = 64
_SHARD_KEYS: Final = 4096  # with fewer, chance would fill a shard long before the store


class SharedReplayCache:
    """A store that remembers keys for one to two windows in the file at `path` (mode 0600), made if missing.

    `window`: seconds.  A generation holds at most `capacity` keys, a few percent fewer if chance fills one of
    its shards early; then requests are refused until it ends.  The file takes 21 bytes for each.

    A store may be opened before a fork, for all the processes.  In a process it is opened once and used in one
    thread, because its locks exclude other processes only.

    Raises ConfigurationError if the file was made with other settings or there is no space for it.
    """

    def __init__(
        self, path: str | os.PathLike[str], window: float = 121.0, capacity: int = DEFAULT_RATE * 121
    ) -> None:
        self.window = window
        self.capacity = capacity
        self._shards = min(_MOST_SHARDS, capacity // _SHARD_KEYS) or 1
        self._limit = -(-capacity // self._shards)
        self._slots = self._limit * 4 // 3 + 1  # at most three quarters full, so that few slots are probed
        words = _TABLES + 2 * self._shards * self._slots
        Path(path).parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.lockf(self._handle, fcntl.LOCK_EX)
            try:
                self._seed = self._open(Path(path).name, 8 * words)
            finally:
                fcntl.lockf(self._handle, fcntl.LOCK_UN)
            self._map = mmap.mmap(self._handle, 8 * words)
        except BaseException:
            os.close(self._handle)
            raise
        self._words = memoryview(self._map).cast("Q")
        self._starts = memoryview(self._map).cast("d")

    def _open(self, name: str, size: int) -> bytes:
        """Check the file's header, or write it; return its seed."""
        stored = os.pread(self._handle, _HEADER.size, 0)
        if not any(stored):  # a new file, or its maker was killed before the header
            try:
                os.posix_fallocate(self._handle, 0, size)  # a full disk is an error now, not a fault later
            except OSError as error:
                raise ConfigurationError(
                    f"no space for the replay file {name} of {size} bytes: {error.strerror}"
                ) from None
            # The seed is secret: a client that could choose slots could make look-ups slow.
            seed = os.urandom(16)
            os.pwrite(self._handle, self._header(seed), 0)
            return seed
        seed = stored[len(_MAGIC) : len(_MAGIC) + 16]
        if stored != self._header(seed) or os.fstat(self._handle).st_size != size:
            raise ConfigurationError(
                f"the replay file {name} was made with another window or number of keys: use the former ones, "
                f"or stop the gateway, wait {self.window:.0f} seconds and remove the file"
            )
        return seed

    def _header(self, seed: bytes) -> bytes:
        return _HEADER.pack(_MAGIC, seed, self._shards, self._limit, self.window)

    def close(self) -> None:
        """Close the file."""
        self._words.release()
        self._starts.release()
        self._map.close()
        os.close(self._handle)

    def seen(self, key: bytes, now: float) -> bool:
        """Remember `key` (16 bytes); tell whether it was remembered before.  Raises ReplayStoreFull."""
        value = int.from_bytes(hashlib.sha256(self._seed + key).digest()[:8], "little") or 1  # 0 is empty
        rest, shard = divmod(value, self._shards)
        # The lock of a shard is a byte of the file; a lock is held by a process.
        fcntl.lockf(self._handle, fcntl.LOCK_EX, 1, shard)
        try:
            return self._seen(shard, value, rest % self._slots, now)
        finally:
            fcntl.lockf(self._handle, fcntl.LOCK_UN, 1, shard)

    def _seen(self, shard: int, value: int, slot: int, now: float) -> bool:
        words, state = self._words, _STATES + 4 * shard
        if now - self._starts[state] >= self.window:
            self._turn(shard, state, now)
        current = words[state + 1]
        if words[state + 3 - current] and words[self._place(shard, 1 - current, value, slot)]:
            return True
        place = self._place(shard, current, value, slot)
        if words[place]:
            return True
        count = words[state + 2 + current]
        if count >= self._limit:
            raise ReplayStoreFull("the replay store is full")
        words[state + 2 + current] = count + 1  # first: a table must never hold more than it counts
        words[place] = value
        return False

    def _table(self, shard: int, table: int) -> int:
        return _TABLES + (2 * shard + table) * self._slots

    def _place(self, shard: int, table: int, value: int, slot: int) -> int:
        """Return where `value` is in a table, or the empty place where it would be."""
        words, start = self._words, self._table(shard, table)
        place, end = start + slot, start + self._slots
        while (found := words[place]) and found != value:
            place += 1
            if place == end:
                place = start
        return place

    def _turn(self, shard: int, state: int, now: float) -> None:
        """Begin a new generation; forget what is older than the last one.

        Until the time is set, the next look-up does all of it again.  If the process is killed before the tables
        change places, the older one goes on as the newer one: its keys are remembered for longer.
        """
        current = self._words[state + 1]
        outlived = now - self._starts[state] >= 2 * self.window
        for table in (0, 1) if outlived else (1 - current,):
            if self._words[state + 2 + table]:
                start = 8 * self._table(shard, table)
                self._map[start : start + 8 * self._slots] = bytes(8 * self._slots)
                self._words[state + 2 + table] = 0
        self._starts[state] = now
        self._words[state + 1] = 1 - current
