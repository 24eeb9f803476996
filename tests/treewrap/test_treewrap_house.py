"""The package stands alone, imports go down its floors only, and its page tells the truth."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import treewrap

PACKAGE = Path(treewrap.__file__).parent
FLOORS = [
    {"errors", "secret"},
    {"codec", "geometry", "suite"},
    {"links", "pages", "deferred"},
    {"changes", "seals"},
    {"root", "loading"},
    {"wire", "rules"},
    {"snapshot", "staging", "verify", "paths", "state"},
    {"commit", "public"},
    {"follow", "light"},
    {"member"},
    {"join", "vectors"},
]


def imported(module: Path) -> set[str]:
    """Name the package's own modules that a module imports when it runs."""
    tree = ast.parse(module.read_text())
    typing_only = {
        id(node)
        for branch in ast.walk(tree)
        if isinstance(branch, ast.If) and ast.unparse(branch.test) == "TYPE_CHECKING"
        for node in ast.walk(branch)
    }
    names = {
        node.module
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and node.module and id(node) not in typing_only
    }
    names |= {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
    assert not {name for name in names if name.startswith(("mimi_mmr", "ohttp_relay"))}
    return {name.removeprefix("treewrap.") for name in names if name.startswith("treewrap.")}


def test_imports_go_down_the_floors_only() -> None:
    allowed: dict[str, set[str]] = {}
    below: set[str] = set()
    for floor in FLOORS:
        for module in floor:
            allowed[module] = set(below) | floor
        below |= floor
    graph = {path.stem: imported(path) for path in PACKAGE.glob("*.py") if path.stem[:2] != "__"}
    for module, uses in graph.items():
        assert uses <= allowed[module] - {module}, module
    done: set[str] = set()
    while len(done) < len(graph):
        ready = {module for module, uses in graph.items() if module not in done and uses <= done}
        assert ready, f"a circle among {sorted(graph.keys() - done)}"
        done |= ready


def test_every_example_on_the_page_runs() -> None:
    examples = re.findall(r"```python\n(.*?)```", (PACKAGE / "README.md").read_text(), re.DOTALL)
    assert examples
    shared: dict[str, object] = {}
    for example in examples:
        exec(compile(example, "README.md", "exec"), shared)  # noqa: S102


def test_every_public_name_has_its_docstring() -> None:
    for name in treewrap.__all__:
        thing = getattr(treewrap, name)
        if isinstance(thing, type):
            assert thing.__doc__, name
