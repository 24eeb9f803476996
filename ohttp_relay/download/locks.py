"""One fetch of an object among all workers: who holds the object's lock fetches, the others follow what it writes.

Locks end with their process, so nothing is left of a worker that dies but a part of a file, which is never
taken for the whole.
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

LOOK: Final = 0.05
"""Seconds between two looks at what another worker does: nothing tells one process of another's writes."""

_PIECE: Final = 256 * 1024


class Claim:
    """The right to fetch one object, held by one worker until it lets go or dies."""

    def __init__(self, path: Path, handle: int) -> None:
        self._path = path
        self._handle = handle

    @classmethod
    def take(cls, path: Path) -> Claim | None:
        """Take the lock at `path`; None if another worker has it."""
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
            os.close(handle)  # it was let go, and removed, in between

    def announce(self, part: Path, fields: tuple[Field, ...], size: int | None) -> None:
        """Tell the others what is being written to `part`: its fields, its size in bytes if that is known."""
        written = self._path.with_suffix(f".{os.getpid()}.coming.part")
        written.write_text(json.dumps({"part": part.name, "fields": fields, "size": size}))
        written.replace(_announcement(self._path))

    def release(self) -> None:
        """Let go; what was fetched is in its place, or discarded."""
        _announcement(self._path).unlink(missing_ok=True)
        self._path.unlink(missing_ok=True)
        os.close(self._handle)


@dataclass(frozen=True, slots=True)
class Coming:
    """An object that another worker is writing: fields, size in bytes if that is known, where it lies."""

    fields: tuple[Field, ...]
    size: int | None
    part: Path
    lock: Path

    @classmethod
    def of(cls, lock: Path) -> Coming | None:
        """Return what the holder of a lock has announced."""
        try:
            told = json.loads(_announcement(lock).read_text())
            fields = tuple((str(name), str(value)) for name, value in told["fields"])
            found = cls(fields, told["size"], lock.with_name(str(told["part"])), lock)
        except (OSError, ValueError, KeyError, TypeError):
            return None
        return found if found._is_being_written() else None

    async def read(self, start: int = 0, stop: int | None = None) -> AsyncIterator[bytes]:
        """Give the bytes from `start` to `stop` (or the end) as they come.

        Raises TargetUnreachable if the other worker failed or died.
        """
        try:
            file = self.part.open("rb")
        except OSError:
            raise TargetUnreachable("the object is gone") from None
        with file:
            offset = start
            while stop is None or offset < stop:
                last = not self._is_being_written()  # asked first, so that nothing written since is missed
                end = os.fstat(file.fileno()).st_size
                end = end if stop is None else min(stop, end)
                if offset < end:
                    piece = os.pread(file.fileno(), min(_PIECE, end - offset), offset)
                    offset += len(piece)
                    yield piece
                elif last:
                    break
                else:
                    await asyncio.sleep(LOOK)
            # A whole object was moved to its place; a failed one was removed, a dead worker's still lies there.
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
