"""What a person types starts fast: nothing is imported that it does not need."""

from __future__ import annotations

import subprocess
import sys

import pytest

HELP = """
from typer.testing import CliRunner
from mimi_mmr.app.cli import app
assert "contact" in CliRunner().invoke(app, ["--help"]).output
"""
COMMANDS = """
from importlib import import_module
from mimi_mmr.app.commands import NOUNS
import mimi_mmr.app.commands.table
for noun in NOUNS:
    import_module(f"mimi_mmr.app.cli.{noun}")
"""


@pytest.mark.parametrize(
    ("script", "absent"),
    [
        (HELP, {"pydantic", "asyncio", "cryptography", "aiohttp"}),
        (
            COMMANDS,
            {"asyncio", "cryptography", "aiohttp", "sqlalchemy", "mimi_mmr.client", "mimi_mmr.provider"},
        ),
    ],
    ids=["help", "every command"],
)
def test_nothing_slow_is_imported(script: str, absent: set[str]) -> None:
    code = f"import sys\n{script}\nprint(*sorted(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    imported = set(done.stdout.split())
    assert "mimi_mmr.app.cli" in imported
    assert not imported & absent
