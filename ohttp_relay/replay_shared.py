"""A replay store that all workers of a gateway share, and that outlives them: a hash table in a mapped file.

Two generations of `window` seconds, each an open-addressed table of 16-byte keys.  One look-up costs a
file lock and a few slots of memory; what is on disk is hashes of encapsulated keys, nothing of a request.
"""

from __future__ import annotations

import fcntl
import hashlib
import mmap
import os
import struct
from pathlib import Path
from typing import Final

from .errors import ConfigurationError, ReplayStoreFull
from .replay import KEY_SIZE

_MAGIC: Final = b"OHTTPRC1"
_HEADER: Final = struct.Struct("<8s16sQddQQQ")  # magic, seed, slots, window, started, current, counts
_STATE: Final = struct.Struct("<dQQQ")  # the header's last four
_COUNTS: Final = struct.Struct("<QQ")
_DATA: Final = 4096
_EMPTY: Final = bytes(KEY_SIZE)


class SharedReplayCache:
    """Remembers keys for one to two windows in the file at `path` (mode 0600), made if it is missing.

    At most `capacity` keys a generation; when that is reached, requests are refused until it ends.  A file
    made with other settings raises ConfigurationError.
    """

    def __init__(
        self, path: str | os.PathLike[str], window: float = 121.0, capacity: int = 2_000_000
    ) -> None:
        self.window = window
        self.capacity = capacity
        slots = capacity * 4 // 3 + 1  # at most three quarters full, so that probes stay short
        size = _DATA + 2 * slots * KEY_SIZE
        Path(path).parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        fcntl.lockf(self._handle, fcntl.LOCK_EX)
        try:
            if os.fstat(self._handle).st_size == 0:
                os.ftruncate(self._handle, size)
                seed = os.urandom(16)  # slots must not be predictable, or a client could fill one row
                os.pwrite(self._handle, _HEADER.pack(_MAGIC, seed, slots, window, float("-inf"), 0, 0, 0), 0)
            magic, self._seed, stored_slots, stored_window = _HEADER.unpack(
                os.pread(self._handle, _HEADER.size, 0)
            )[:4]
        finally:
            fcntl.lockf(self._handle, fcntl.LOCK_UN)
        if (magic, stored_slots, stored_window) != (_MAGIC, slots, window):
            os.close(self._handle)
            raise ConfigurationError("the replay file was made with other settings: remove it")
        self._slots = slots
        # Pages are taken now rather than by a fault for each request, which would cost more than the look-up.
        flags = mmap.MAP_SHARED | getattr(mmap, "MAP_POPULATE", 0)
        self._map = mmap.mmap(self._handle, size, flags=flags)

    def close(self) -> None:
        """Let go of the file."""
        self._map.close()
        os.close(self._handle)

    def seen(self, key: bytes, now: float) -> bool:
        """Remember `key` (16 bytes); tell whether it was known.  Raises ReplayStoreFull."""
        start = int.from_bytes(hashlib.blake2b(key, key=self._seed, digest_size=8).digest(), "little")
        fcntl.lockf(self._handle, fcntl.LOCK_EX)  # by process, so also right when opened before a fork
        try:
            return self._seen(key, now, start)
        finally:
            fcntl.lockf(self._handle, fcntl.LOCK_UN)

    def _seen(self, key: bytes, now: float, start: int) -> bool:
        current, counts = self._turn(now)
        if counts[1 - current] and self._slot(1 - current, key, start)[1]:
            return True
        offset, known = self._slot(current, key, start)
        if known:
            return True
        if counts[current] >= self.capacity:
            raise ReplayStoreFull("the replay store is full")
        self._map[offset : offset + KEY_SIZE] = key
        counts[current] += 1
        _COUNTS.pack_into(self._map, _HEADER.size - 16, *counts)
        return False

    def _slot(self, table: int, key: bytes, start: int) -> tuple[int, bool]:
        """Return the offset where `key` is, or would be, and whether it is there."""
        base = _DATA + table * self._slots * KEY_SIZE
        data, slots = self._map, self._slots
        index = start % slots
        while True:
            offset = base + index * KEY_SIZE
            found = data[offset : offset + KEY_SIZE]
            if found == key:
                return offset, True
            if found == _EMPTY:
                return offset, False
            index = (index + 1) % slots

    def _turn(self, now: float) -> tuple[int, list[int]]:
        started, current, *counts = _STATE.unpack_from(self._map, _HEADER.size - 32)
        age = now - started
        if age < self.window:
            return current, counts
        for table in (1 - current,) if age < 2 * self.window else (0, 1):
            self._clear(table, counts)
        current = 1 - current
        _STATE.pack_into(self._map, _HEADER.size - 32, now, current, *counts)
        return current, counts

    def _clear(self, table: int, counts: list[int]) -> None:
        if counts[table]:
            size = self._slots * KEY_SIZE
            self._map[_DATA + table * size : _DATA + (table + 1) * size] = bytes(size)
            counts[table] = 0
