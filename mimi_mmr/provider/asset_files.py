"""The files of an asset host: each asset is there whole, under its name, or not at all.

An asset is written to a partial file and renamed. Its writer holds a lock on the partial file until then. So a
partial file without a lock is one that nobody will finish: its process was killed.
"""

from __future__ import annotations

import errno
import fcntl
import os
import re
import secrets
from pathlib import Path

NAME = re.compile(r"[0-9a-f]{32}")
_PARTIAL = ".part"
_FULL = (errno.ENOSPC, errno.EDQUOT)


class StorageFull(Exception):
    """The file system, or this user's quota on it, has no room left; nothing was stored."""


class AssetFiles:
    """Assets by name (32 hexadecimal digits) in one directory."""

    def __init__(self, directory: Path) -> None:
        """Make the directory if it is missing; raise `OSError`."""
        directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._directory = directory

    def find(self, name: str) -> Path | None:
        """Return an asset's file; None for a name that no asset has."""
        path = self._directory / name
        return path if NAME.fullmatch(name) and path.is_file() else None

    def store(self, name: str, content: bytes) -> None:
        """Write an asset and return when it is on the disk. Raise `StorageFull`, or another `OSError`."""
        try:
            descriptor, partial = self._begin(name)
            try:
                with os.fdopen(descriptor, "wb") as file:
                    file.write(content)
                    file.flush()
                    os.fsync(file.fileno())
                    partial.rename(self._directory / name)
            except BaseException:
                partial.unlink(missing_ok=True)
                raise
        except OSError as error:
            if error.errno in _FULL:
                raise StorageFull from None
            raise

    def _begin(self, name: str) -> tuple[int, Path]:
        """Open a new partial file, locked."""
        while True:
            path = self._directory / f"{name}.{secrets.token_hex(4)}{_PARTIAL}"
            descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            if _lock(descriptor) and os.fstat(descriptor).st_nlink:
                return descriptor, path
            os.close(descriptor)  # `sweep` has just found it, before it was locked

    def sweep(self) -> int:
        """Delete the partial files that nobody will finish; return how many. May run beside `store`."""
        swept = 0
        for path in self._directory.glob(f"*{_PARTIAL}"):
            try:
                descriptor = os.open(path, os.O_WRONLY | os.O_NOFOLLOW)
            except OSError:
                continue  # it was finished, or is no file of ours
            try:
                if _lock(descriptor):
                    path.unlink(missing_ok=True)
                    swept += 1
            finally:
                os.close(descriptor)
        return swept


def _lock(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
