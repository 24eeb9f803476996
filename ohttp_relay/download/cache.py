"""A bounded disk cache of complete objects, and objects that are being read and written at once."""

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
_RESCAN: Final = 32  # additions after which a worker looks what the others did
_ABANDONED: Final = 3600.0  # seconds without a write; a download that is alive writes every few


@dataclass(frozen=True, slots=True)
class StoredObject:
    """A complete object on disk: fields to serve, size in bytes, when it came (seconds since 1970)."""

    name: str
    fields: tuple[Field, ...]
    size: int
    stored_at: float
    lifetime: float
    age: float

    def current_age(self, now: float) -> float:
        """Age in seconds (RFC 9111, section 4.2.3)."""
        return self.age + max(0.0, now - self.stored_at)

    def is_fresh(self, now: float) -> bool:
        """Whether it may be served without asking the origin."""
        return self.current_age(now) < self.lifetime


def object_name(url: str) -> str:
    """Return the file name of a URL's object."""
    return hashlib.sha256(url.encode()).hexdigest()


class DiskCache:
    """Objects by name in one directory (mode 0700), the least recently used removed beyond `capacity` bytes.

    Metadata and content are two files; the metadata file is written last, so what has one is complete.
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
        """Learn what is stored, by whichever worker, the least recently used first."""
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
            self._remember(stored)  # another worker's
        self._sizes.move_to_end(name)
        with contextlib.suppress(OSError):
            os.utime(self._folder / f"{name}.json")  # other workers, and the next start, go by this
        return stored

    def body(self, name: str) -> Path:
        """Return where the object's content lies."""
        return self._folder / f"{name}.body"

    def part(self, name: str) -> Path:
        """Return a new place to write content to."""
        return self._folder / f"{name}.{os.getpid()}.{os.urandom(4).hex()}.part"

    def lock(self, name: str) -> Path:
        """Return where the lock of an object's fetch lies."""
        return self._folder / f"{name}.lock"

    def add(self, stored: StoredObject, part: Path) -> None:
        """Take the complete content at `part` as the object's; make room."""
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
        """Note that the origin confirmed the object (RFC 9111, section 4.3.4)."""
        confirmed = replace(stored, stored_at=now, lifetime=lifetime, age=age)
        self.update(confirmed)
        return confirmed

    def remove(self, name: str) -> None:
        """Forget an object."""
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


_LEFT: Final = (".part", ".body", ".lock", ".coming")  # by a worker that died
_META: Final = ("name", "size", "stored_at", "lifetime", "age")


def _changed(path: Path) -> float:
    """Return when a file was last written or used; the far future if another worker just removed it."""
    try:
        return path.stat().st_mtime
    except OSError:
        return float("inf")


def _abandoned(path: Path) -> bool:
    """Tell whether a file without metadata was left by a process that died: other workers' are in use."""
    return time.time() - _changed(path) > _ABANDONED


class GrowingFile:
    """Content that one writer appends to a file while any number of readers follow."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.size = 0
        self.failed = False
        self.complete = False
        self._progress = asyncio.Condition()
        self._file: BinaryIO = path.open("wb")
        path.chmod(0o600)

    async def append(self, piece: bytes) -> None:
        """Add a piece and wake the readers."""
        self._file.write(piece)
        self._file.flush()
        await self._advance(self.size + len(piece))

    async def finish(self, *, failed: bool = False) -> None:
        """End the content, whole or not."""
        with contextlib.suppress(OSError):  # a full disk was noticed when the piece was written
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
        """Give the bytes from `start` to `stop` (or the end) as they come.

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
    """Give the bytes of a complete file from `start` to `stop`."""
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
    """Remove a file; open readers keep their content."""
    with contextlib.suppress(OSError):
        path.unlink()
