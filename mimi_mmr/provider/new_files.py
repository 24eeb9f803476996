"""New files that appear whole or not at all: written beside their place, and named when they are on the disk."""

from __future__ import annotations

import errno
import os
import tempfile
from pathlib import Path

# What a file system without hard links answers: FAT, some network and FUSE file systems.
_NO_LINKS = {errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK, errno.EACCES}


def write_new(path: Path, data: bytes, mode: int = 0o600) -> None:
    """Write a file that is not there yet. After a failure nothing of it is left.

    Raises `FileExistsError` if there is something of this name, or `OSError`, each with this path.
    """
    partial = ""
    try:
        descriptor, partial = tempfile.mkstemp(dir=path.parent, prefix=".", suffix=".part")
        with os.fdopen(descriptor, "wb") as file:
            os.fchmod(file.fileno(), mode)
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        _put(partial, path)
        _sync(path.parent)
    except OSError as error:
        assert error.errno is not None  # noqa: S101  # each of these calls sets it
        raise OSError(error.errno, error.strerror, str(path)) from None
    finally:
        if partial:
            Path(partial).unlink(missing_ok=True)


def _put(partial: str, path: Path) -> None:
    """Give a written file its name, unless the name is taken."""
    try:
        os.link(partial, path)
    except OSError as error:
        if error.errno not in _NO_LINKS:
            raise
        os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600))
        Path(partial).replace(path)


def _sync(directory: Path) -> None:
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno != errno.EINVAL:  # some file systems can't do this for directories
            raise
    finally:
        os.close(descriptor)
