"""The benchmark runs, and its figures that do not depend on the machine are as published."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import treewrap

ROOT = Path(treewrap.__file__).parent.parent


def test_it_measures_every_scheme(tmp_path: Path) -> None:
    file = tmp_path / "figures.json"
    command = [sys.executable, "-m", "benchmarks.treewrap", "--sizes", "300", "--arities", "16"]
    done = subprocess.run(
        [*command, "--json", str(file)], cwd=ROOT, check=True, capture_output=True, text=True
    )
    assert "Tree Wrap, k=16" in done.stdout
    rows = {row["scheme"]: row for row in json.loads(file.read_text())}
    assert len(rows) == 5
    assert {name for name, row in rows.items() if row["fs"] == row["pcs"] == "yes"} == {
        "all again each epoch",
        "binary, one wrap a node",
        "Tree Wrap, k=16",
    }
    ours = rows["Tree Wrap, k=16"]
    assert 32 < ours["stored_bytes_member"] < 37
    assert ours["fanout_bytes"] == 98 + 53
