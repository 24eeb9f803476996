"""A replay store that all workers of a gateway share and that outlives them: a hash table in a mapped file.

It has two generations of `window` seconds, each an open-addressed table of 16-byte keys.  One look-up costs a
file lock and a few slots of memory.  The file holds hashes of encapsulated keys and nothing else of a request.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import mmap
import os
import struct
from pathlib import Path
from typing import Final

from ohttp_relay.errors import ConfigurationError, ReplayStoreFull
from ohttp_relay.gateway.replay import KEY_SIZE

_MAGIC: Final = b"OHTTPRC1"
_HEADER: Final = struct.Struct(
    "=8s16sQddQQQ"
)  # magic, seed, slots, window, started, current, counts; of this machine's byte order
_DATA: Final = 4096
_EMPTY: Final = bytes(KEY_SIZE)
_POPULATE_WRITE: Final = 23  # MADV_POPULATE_WRITE, see madvise(2)


class SharedReplayCache:
    """A store that remembers keys for one to two windows in the file at `path` (mode 0600), made if missing.

    A generation holds at most `capacity` keys; when it is full, requests are refused until it ends.  Raises
    ConfigurationError for a file made with other settings.
    """

    def __init__(
        self, path: str | os.PathLike[str], window: float = 121.0, capacity: int = 2_000_000
    ) -> None:
        self.window = window
        self.capacity = capacity
        slots = capacity * 4 // 3 + 1  # at most three quarters full, so that few slots are probed
        size = _DATA + 2 * slots * KEY_SIZE
        Path(path).parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        fcntl.lockf(self._handle, fcntl.LOCK_EX)
        try:
            if os.fstat(self._handle).st_size == 0:
                os.ftruncate(self._handle, size)
                seed = os.urandom(
                    16
                )  # a client must not be able to choose slots, or it could make look-ups slow
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
        self._map = mmap.mmap(self._handle, size)
        # Makes all pages writable now: a page fault in a request would cost more than the look-up.
        with contextlib.suppress(OSError):  # kernels before 5.14
            self._map.madvise(_POPULATE_WRITE)
        header = memoryview(self._map)[: _HEADER.size]
        self._started = header[-32:-24].cast("d")
        self._state = header[-24:].cast("Q")  # which table is current, how many keys are in each

    def close(self) -> None:
        """Close the file."""
        self._started.release()
        self._state.release()
        self._map.close()
        os.close(self._handle)

    def seen(self, key: bytes, now: float) -> bool:
        """Remember `key` (16 bytes); tell whether it was remembered before.  Raises ReplayStoreFull."""
        digest = hashlib.blake2b(key, key=self._seed, digest_size=8).digest()
        start = int.from_bytes(digest, "little") % self._slots
        fcntl.lockf(
            self._handle, fcntl.LOCK_EX
        )  # held by a process, also if it opened the file before a fork
        try:
            return self._seen(key, now, start)
        finally:
            fcntl.lockf(self._handle, fcntl.LOCK_UN)

    def _seen(self, key: bytes, now: float, start: int) -> bool:
        state = self._state
        age = now - self._started[0]
        if age >= self.window:
            self._turn(now, age)
        current = state[0]
        if state[2 - current] and self._slot(1 - current, key, start) is None:
            return True
        offset = self._slot(current, key, start)
        if offset is None:
            return True
        if state[1 + current] >= self.capacity:
            raise ReplayStoreFull("the replay store is full")
        self._map[offset : offset + KEY_SIZE] = key
        state[1 + current] += 1
        return False

    def _slot(self, table: int, key: bytes, index: int) -> int | None:
        """Return the offset where `key` would be; None if it is there."""
        data, base = self._map, _DATA + table * self._slots * KEY_SIZE
        while True:
            offset = base + index * KEY_SIZE
            found = data[offset : offset + KEY_SIZE]
            if found == _EMPTY:
                return offset
            if found == key:
                return None
            index = (index + 1) % self._slots

    def _turn(self, now: float, age: float) -> None:
        """Begin a new generation; forget what is older than the last one."""
        current = self._state[0]
        for table in (1 - current,) if age < 2 * self.window else (0, 1):
            self._clear(table)
        self._started[0], self._state[0] = now, 1 - current

    def _clear(self, table: int) -> None:
        if self._state[1 + table]:
            size = self._slots * KEY_SIZE
            self._map[_DATA + table * size : _DATA + (table + 1) * size] = bytes(size)
            self._state[1 + table] = 0
