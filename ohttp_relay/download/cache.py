"""A bounded disk cache of complete objects, and files that are read while they are written."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import os
import time
from collections import OrderedDict
from collections.abc import AsyncIterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import BinaryIO, Final

from ohttp_relay.bhttp.fields import Field
from ohttp_relay.errors import TargetUnreachable

PIECE: Final = 256 * 1024
_RESCAN: Final = 32  # additions after which a worker reads the directory again, for objects of other workers
_ABANDONED: Final = 3600.0  # seconds without a write, after which no process can still be writing


@dataclass(frozen=True, slots=True)
class StoredObject:
    """A complete object on disk: fields to serve, size in bytes, time of storing (seconds since 1970)."""

    name: str
    fields: tuple[Field, ...]
    size: int
    stored_at: float
    lifetime: float
    age: float

    def current_age(self, now: float) -> float:
        """Return the age in seconds at time `now` (RFC 9111, section 4.2.3)."""
        return self.age + max(0.0, now - self.stored_at)

    def is_fresh(self, now: float) -> bool:
        """Tell whether the object may be served without asking the origin."""
        return self.current_age(now) < self.lifetime


def object_name(url: str) -> str:
    """Return the file name of a URL's object."""
    return hashlib.sha256(url.encode()).hexdigest()


class DiskCache:
    """Objects by name in one directory (mode 0700); beyond `capacity` bytes the least recently used is removed.

    Metadata and content are two files.  The metadata file is written last, so an object that has one is
    complete.
    """

    def __init__(self, directory: str | os.PathLike[str], capacity: int) -> None:
        self._folder = Path(directory)
        self._capacity = capacity
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._sizes: OrderedDict[str, int] = OrderedDict()
        self._total = 0
        self._added = 0
        self._scan()

    def _scan(self) -> None:
        """Read the objects of all workers, the least recently used first; remove leftovers of dead workers."""
        self._sizes.clear()
        self._total = 0
        for path in sorted(self._folder.glob("*.json"), key=_changed):
            stored = self._read(path.stem)
            if stored is not None:
                self._remember(stored)
        for path in self._folder.iterdir():
            if path.suffix in _LEFT and path.stem not in self._sizes and _abandoned(path):
                path.unlink(missing_ok=True)

    def find(self, name: str) -> StoredObject | None:
        """Return the object of that name, complete, or None."""
        stored = self._read(name)
        if stored is None:
            return None
        if name not in self._sizes:
            self._remember(stored)  # another worker stored it
        self._sizes.move_to_end(name)
        with contextlib.suppress(OSError):
            os.utime(
                self._folder / f"{name}.json"
            )  # other workers, and the next start, order objects by this
        return stored

    def body(self, name: str) -> Path:
        """Return the path of the object's content."""
        return self._folder / f"{name}.body"

    def part(self, name: str) -> Path:
        """Return a new path to write content to."""
        return self._folder / f"{name}.{os.getpid()}.{os.urandom(4).hex()}.part"

    def lock(self, name: str) -> Path:
        """Return the path of the lock for fetching an object."""
        return self._folder / f"{name}.lock"

    def add(self, stored: StoredObject, part: Path) -> None:
        """Store the complete content at `part` as the object's; remove others beyond the capacity."""
        part.replace(self.body(stored.name))
        self.update(stored)
        self._added += 1
        if self._added % _RESCAN == 0:
            self._scan()
        self._evict()

    def update(self, stored: StoredObject) -> None:
        """Write an object's metadata."""
        temporary = self._folder / f"{stored.name}.{os.getpid()}.json.part"
        meta = {**{key: getattr(stored, key) for key in _META}, "fields": list(stored.fields)}
        temporary.write_text(json.dumps(meta))
        temporary.replace(self._folder / f"{stored.name}.json")
        self._remember(stored)

    def refresh(self, stored: StoredObject, now: float, lifetime: float, age: float) -> StoredObject:
        """Store and return the object as confirmed by the origin (RFC 9111, section 4.3.4)."""
        confirmed = replace(stored, stored_at=now, lifetime=lifetime, age=age)
        self.update(confirmed)
        return confirmed

    def remove(self, name: str) -> None:
        """Remove an object."""
        (self._folder / f"{name}.json").unlink(missing_ok=True)
        self.body(name).unlink(missing_ok=True)
        self._total -= self._sizes.pop(name, 0)

    @property
    def total(self) -> int:
        """Bytes of content known to be stored."""
        return self._total

    def _remember(self, stored: StoredObject) -> None:
        self._total += stored.size - self._sizes.pop(stored.name, 0)
        self._sizes[stored.name] = stored.size

    def _evict(self) -> None:
        while self._total > self._capacity and self._sizes:
            self.remove(next(iter(self._sizes)))

    def _read(self, name: str) -> StoredObject | None:
        try:
            meta = json.loads((self._folder / f"{name}.json").read_text())
            fields = tuple((str(key), str(value)) for key, value in meta["fields"])
            numbers = (float(meta[key]) for key in ("stored_at", "lifetime", "age"))
            stored = StoredObject(name, fields, int(meta["size"]), *numbers)
            return stored if self.body(name).stat().st_size == stored.size else None
        except (OSError, ValueError, KeyError, TypeError):
            return None


_LEFT: Final = (
    ".part",
    ".body",
    ".lock",
    ".coming",
)  # suffixes of files that a worker may leave when it dies
_META: Final = ("name", "size", "stored_at", "lifetime", "age")


def _changed(path: Path) -> float:
    """Return when a file was last written or used; infinity if another worker just removed it."""
    try:
        return path.stat().st_mtime
    except OSError:
        return float("inf")


def _abandoned(path: Path) -> bool:
    """Tell whether a file without metadata is too old to be in use by another worker."""
    return time.time() - _changed(path) > _ABANDONED


class GrowingFile:
    """A file that one writer appends to while any number of readers follow."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.size = 0
        self.failed = False
        self.complete = False
        self._progress = asyncio.Condition()
        self._file: BinaryIO = path.open("wb")
        path.chmod(0o600)

    async def append(self, piece: bytes) -> None:
        """Append a piece and wake the readers."""
        self._file.write(piece)
        self._file.flush()
        await self._advance(self.size + len(piece))

    async def finish(self, *, failed: bool = False) -> None:
        """End the content; with `failed`, it is not whole and the readers raise."""
        with contextlib.suppress(OSError):  # a full disk already failed the write
            self._file.close()
        self.failed = failed
        self.complete = not failed
        await self._advance(self.size)

    async def _advance(self, size: int) -> None:
        async with self._progress:
            self.size = size
            self._progress.notify_all()

    async def _available(self, offset: int) -> int:
        async with self._progress:
            await self._progress.wait_for(lambda: self.size > offset or self.complete or self.failed)
            return self.size

    async def read(self, start: int = 0, stop: int | None = None) -> AsyncIterator[bytes]:
        """Yield the bytes from `start` to `stop` (or the end) as they come.

        Raises TargetUnreachable if the writer failed.
        """
        with _opened(self.path) as file:
            offset = start
            while stop is None or offset < stop:
                size = await self._available(offset)
                if size <= offset:
                    break
                piece = _read_at(file, offset, min(stop or size, size))
                offset += len(piece)
                yield piece
            if self.failed:
                raise TargetUnreachable("the content did not come whole")


async def read_file(path: Path, start: int, stop: int) -> AsyncIterator[bytes]:
    """Yield the bytes of a complete file from `start` to `stop`.  Raises TargetUnreachable if there are fewer."""
    with _opened(path) as file:
        offset = start
        while offset < stop:
            piece = _read_at(file, offset, stop)
            if not piece:
                raise TargetUnreachable("a stored object is shorter than it says")
            offset += len(piece)
            yield piece
            await asyncio.sleep(0)


def _opened(path: Path) -> BinaryIO:
    try:
        return path.open("rb")
    except OSError:
        raise TargetUnreachable("a stored object is gone") from None


def _read_at(file: BinaryIO, offset: int, stop: int) -> bytes:
    return os.pread(file.fileno(), min(PIECE, stop - offset), offset)


def discard(path: Path) -> None:
    """Remove a file; readers that have it open can read on."""
    with contextlib.suppress(OSError):
        path.unlink()
