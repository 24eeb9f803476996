"""Each row of the threats names tests that prove it, and they are there."""

from __future__ import annotations

import ast
import re

import pytest

from tests.docs.pages import ROOT, table

PAGE = ROOT / "docs" / "specs" / "threats.md"
ROWS = [*table(PAGE, "## One party"), *table(PAGE, "## Several parties together")]


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row[0])
def test_a_row_is_proved_by_tests_that_are_there(row: list[str]) -> None:
    modules = re.findall(r"`(tests/[\w/]+\.py)`", row[-1])
    assert modules, row[0]
    for name in modules:
        tree = ast.parse((ROOT / name).read_text())
        tests = [node for node in tree.body if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef))]
        assert any(node.name.startswith("test_") for node in tests), name


def test_every_test_of_an_adversary_proves_a_row() -> None:
    """By its name: who is malicious or hostile is somebody's adversary."""
    listed = PAGE.read_text()
    written = [
        path.relative_to(ROOT).as_posix()
        for path in (ROOT / "tests" / "mimi_mmr").rglob("test_*.py")
        if re.search(r"malicious|hostile|removed_member|misused|turn_bad", path.name)
        and "mls" not in path.parts
    ]
    assert len(written) > 10
    assert [path for path in written if path not in listed] == []
