"""What the README shows runs as printed."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import ohttp_relay

README = Path(ohttp_relay.__file__).parent / "README.md"
EXAMPLES = re.findall(r"```python\n(.*?)```", README.read_text(), re.DOTALL)


def test_the_examples_run() -> None:
    shown = [
        subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=30
        ).stdout
        for code in EXAMPLES
    ]
    assert shown == ["200 hello, whoever you are\n", "", ""]
    assert shown[0].strip() in README.read_text()
