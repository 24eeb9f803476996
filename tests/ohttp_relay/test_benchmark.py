"""The benchmark of the decision records runs, and has every figure that they cite."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import ohttp_relay

ROOT = Path(ohttp_relay.__file__).parent.parent
ADRS = sorted((ROOT / "docs" / "adr").glob("000[234]-*.md"))


def test_the_figures_of_the_decisions_can_be_measured() -> None:
    command = [sys.executable, "-m", "benchmarks.ohttp", "--decisions", "--seconds", "0.01"]
    done = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True, timeout=120)
    measured = dict(re.fullmatch(r"(.+?)\s+([\d.,]+)", line).groups() for line in done.stdout.splitlines())
    assert all(float(value.replace(",", "")) >= 0 for value in measured.values())
    assert float(measured["0004 x25519_us"]) > 0
    assert len(ADRS) == 3
    for path in ADRS:
        number = path.name[:4]
        cited = {
            f"{number} {name}" for name in re.findall(r"^\| `([^`]+)` \|", path.read_text(), re.MULTILINE)
        }
        assert cited
        assert cited <= set(measured), cited - set(measured)
