"""API pages are built from docstrings, and what is public has one."""

from __future__ import annotations

import importlib
import inspect
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.docs.pages import ROOT

FACES = ("treewrap", "mimi_mmr.client")


def test_the_pages_are_built(tmp_path: Path) -> None:
    """By the command of `make docs`, for the smallest of the packages."""
    wanted = subprocess.run(
        ["make", "-n", "docs"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout
    (command,) = re.findall(r"-m pdoc (.*)$", wanted, re.MULTILINE)
    assert command == "-o build/docs treewrap ohttp_relay mimi_mmr"
    done = subprocess.run(
        [sys.executable, "-m", "pdoc", "-o", str(tmp_path), "treewrap"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    page = (tmp_path / "treewrap.html").read_text()
    for name in importlib.import_module("treewrap").__all__:
        assert f'id="{name}"' in page


@pytest.mark.parametrize("face", FACES)
def test_every_public_name_has_a_docstring(face: str) -> None:
    module = importlib.import_module(face)
    assert module.__doc__
    for name in module.__all__:
        found = getattr(module, name)
        if inspect.isclass(found) or inspect.isfunction(found):
            assert inspect.getdoc(found), name
