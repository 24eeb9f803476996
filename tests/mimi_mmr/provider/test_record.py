"""Recorded frames hold all that a party sees: they are for the user alone who runs it."""

from __future__ import annotations

import os
from pathlib import Path

from mimi_mmr.provider.record import Recorder


def test_frames_are_for_their_owner_alone_whatever_the_umask(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        Recorder(tmp_path / "frames").write("hub", "in", body=b"secret")
    finally:
        os.umask(before)
    made = [tmp_path / "frames", *(tmp_path / "frames").iterdir()]
    assert [path.stat().st_mode & 0o777 for path in made] == [0o700, 0o600]
