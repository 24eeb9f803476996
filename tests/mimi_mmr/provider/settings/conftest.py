"""A place whose settings are right."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from mimi_mmr.lab.demo.world import build_world
from tests.mimi_mmr.provider.settings.settings_world import Place


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Place]:
    """a.example's directory in a world where nothing runs."""
    for name in list(os.environ):
        if name.startswith("MIMI_MMR_"):
            monkeypatch.delenv(name)
    world = build_world(tmp_path, record=False)
    yield Place(world, world.providers["a.example"].directory)
    world.close()
