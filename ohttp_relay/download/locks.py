"""One fetch per object for all workers: the holder of the object's lock fetches, the others read its file.

The system releases a lock when its process ends.  A worker that dies leaves only a part of a file, which is
never taken for a whole object.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import json
import os
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from ohttp_relay.bhttp.fields import Field
from ohttp_relay.errors import TargetUnreachable

POLL_SECONDS: Final = 0.05
"""Seconds between two looks at what another worker has written."""

_PIECE: Final = 256 * 1024


class FetchLock:
    """The lock of one object's fetch, held by one worker until it releases it or dies."""

    def __init__(self, path: Path, handle: int) -> None:
        self._path = path
        self._handle = handle

    @classmethod
    def acquire(cls, path: Path) -> FetchLock | None:
        """Take the lock at `path`; return None if another worker has it."""
        while True:
            handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                os.close(handle)
                return None
            with contextlib.suppress(OSError):
                if path.stat().st_ino == os.fstat(handle).st_ino:
                    return cls(path, handle)
            os.close(handle)  # another worker released and removed it in between

    def announce(self, part: Path, fields: tuple[Field, ...], size: int | None) -> None:
        """Tell the other workers what is written to `part`: fields, and size in bytes if it is known."""
        written = self._path.with_suffix(f".{os.getpid()}.coming.part")
        written.write_text(json.dumps({"part": part.name, "fields": fields, "size": size}))
        written.replace(_announcement(self._path))

    def release(self) -> None:
        """Release the lock, after the object was stored or discarded."""
        _announcement(self._path).unlink(missing_ok=True)
        self._path.unlink(missing_ok=True)
        os.close(self._handle)


@dataclass(frozen=True, slots=True)
class PendingObject:
    """An object that another worker is writing: fields, size in bytes if it is known, file, lock."""

    fields: tuple[Field, ...]
    size: int | None
    part: Path
    lock: Path

    @classmethod
    def find(cls, lock: Path) -> PendingObject | None:
        """Return what the holder of a lock announced; None if there is nothing, or no worker is writing."""
        try:
            announced = json.loads(_announcement(lock).read_text())
            fields = tuple((str(name), str(value)) for name, value in announced["fields"])
            found = cls(fields, announced["size"], lock.with_name(str(announced["part"])), lock)
        except (OSError, ValueError, KeyError, TypeError):
            return None
        return found if found._is_being_written() else None

    async def read(self, start: int = 0, stop: int | None = None) -> AsyncIterator[bytes]:
        """Yield the bytes from `start` to `stop` (or the end) as they come.

        Raises TargetUnreachable if the other worker failed or died.
        """
        try:
            file = self.part.open("rb")
        except OSError:
            raise TargetUnreachable("the object is gone") from None
        with file:
            offset = start
            while stop is None or offset < stop:
                last = (
                    not self._is_being_written()
                )  # before the size is read, so that no later write is missed
                end = os.fstat(file.fileno()).st_size
                end = end if stop is None else min(stop, end)
                if offset < end:
                    piece = os.pread(file.fileno(), min(_PIECE, end - offset), offset)
                    offset += len(piece)
                    yield piece
                elif last:
                    break
                else:
                    await asyncio.sleep(POLL_SECONDS)
            # A whole object was moved away, a failed one removed; the part of a dead worker is still there.
            whole = (stop is not None and offset >= stop) or (
                os.fstat(file.fileno()).st_nlink and not self.part.exists()
            )
            if not whole:
                raise TargetUnreachable("the content did not come whole")

    def _is_being_written(self) -> bool:
        if not self.part.exists():
            return False
        try:
            handle = os.open(self.lock, os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            return False
        try:
            fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        finally:
            os.close(handle)
        return False


def _announcement(lock: Path) -> Path:
    return lock.with_suffix(".coming")
