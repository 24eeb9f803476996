"""Every Python example of every page runs as it is printed."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
READMES = [
    ROOT / "README.md",
    ROOT / "treewrap" / "README.md",
    ROOT / "ohttp_relay" / "README.md",
    *sorted((ROOT / "docs").rglob("*.md")),
]
FENCE = re.compile(r"^```python\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def examples(readme: Path) -> list[str]:
    """The front page's stand each for itself; a package's go on where the one before has ended."""
    found = FENCE.findall(readme.read_text())
    return found if readme.parent == ROOT or not found else ["\n".join(found)]


EXAMPLES = [
    pytest.param(code, id=f"{path.relative_to(ROOT)}:{number}")
    for path in READMES
    for number, code in enumerate(examples(path), start=1)
]


def test_each_package_has_an_example() -> None:
    code = "".join(FENCE.findall((ROOT / "README.md").read_text()))
    assert all(f"from {package}" in code for package in ("treewrap", "ohttp_relay", "mimi_mmr"))


@pytest.mark.parametrize("code", EXAMPLES)
def test_example_runs_as_printed(code: str, tmp_path: Path) -> None:
    script = tmp_path / "example.py"
    script.write_text(code)
    done = subprocess.run(
        [sys.executable, str(script)], cwd=tmp_path, capture_output=True, text=True, timeout=120, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
