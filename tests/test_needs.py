"""A test that needs a program is skipped without it, with a reason, and runs where it is."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.needs import missing, require

ROOT = Path(__file__).parents[1]
TESTS = """
from tests.needs import needs, require

@needs("here", "not-here")
def test_marked():
    raise AssertionError

@needs("here")
def test_runs():
    pass

def test_under_way():
    require("not-here")
    raise AssertionError
"""


def test_what_is_missing_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "here").touch(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert missing("here") == ""
    assert require("here") == [str(tmp_path / "here")]
    assert missing("one", "here", "two").startswith("needs one and two, which .ci/packages installs")


def test_tests_without_their_programs_are_skipped_with_the_reason(tmp_path: Path) -> None:
    (tmp_path / "here").touch(0o755)
    (tmp_path / "test_them.py").write_text(TESTS)
    command = [sys.executable, "-m", "pytest", "-q", "-rs", "-p", "no:cacheprovider", "--rootdir", tmp_path]
    environment = os.environ | {"PATH": str(tmp_path), "PYTHONPATH": str(ROOT)}
    done = subprocess.run([*command, tmp_path], capture_output=True, text=True, env=environment, check=False)
    assert "1 passed, 2 skipped" in done.stdout
    assert done.stdout.count("needs not-here, which .ci/packages installs on Debian") == 2


def test_the_packages_script_changes_nothing_where_it_can_not(tmp_path: Path) -> None:
    """No apt-get here: it says so, and continuous integration goes on."""
    for tool in ("dirname", "id"):
        (tmp_path / tool).symlink_to(require(tool)[0])
    command = [*require("sh"), ROOT / ".ci" / "packages"]
    done = subprocess.run(command, capture_output=True, text=True, env={"PATH": str(tmp_path)}, check=False)
    assert (done.returncode, done.stdout) == (0, "")
    assert "no Debian packages are installed" in done.stderr
    assert "tests that need them are skipped" in done.stderr
