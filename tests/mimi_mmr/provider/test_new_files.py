"""Files that are written appear whole or not at all, and replace nothing."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from pathlib import Path

import pytest

from mimi_mmr.provider import new_files
from mimi_mmr.provider.new_files import write_new

# A process whose files may have 100 bytes, as on a disk with room for no more.
CRAMPED = """
import resource, sys
from pathlib import Path
from mimi_mmr.provider.new_files import write_new
resource.setrlimit(resource.RLIMIT_FSIZE, (100, 100))
try:
    write_new(Path(sys.argv[1]), bytes(1000))
except OSError as error:
    print(error.filename)
"""


def test_on_a_full_disk_no_part_of_a_file_is_left(tmp_path: Path) -> None:
    path = tmp_path / "letter"
    done = subprocess.run([sys.executable, "-c", CRAMPED, str(path)], capture_output=True, text=True)
    assert done.stdout == f"{path}\n", done.stderr
    assert list(tmp_path.iterdir()) == []
    write_new(path, bytes(1000))
    assert path.read_bytes() == bytes(1000)
    assert path.stat().st_mode & 0o777 == 0o600
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("links", [True, False])
def test_what_is_there_already_stays(tmp_path: Path, links: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    if not links:  # a file system without hard links
        monkeypatch.setattr(new_files.os, "link", no_links)
    path = tmp_path / "letter"
    write_new(path, b"first", 0o644)
    with pytest.raises(FileExistsError, match="letter"):
        write_new(path, b"second")
    assert path.read_bytes() == b"first"
    assert path.stat().st_mode & 0o777 == 0o644
    assert list(tmp_path.iterdir()) == [path]


def no_links(_: str, path: Path) -> None:
    raise OSError(errno.EPERM, os.strerror(errno.EPERM), str(path))
