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
    {"links.records", "nodes", "links.deferred"},
    {"changes", "links.seals"},
    {"root", "rows"},
    {"wire", "rules"},
    {"snapshot", "outcome", "verify", "light.paths", "state"},
    {"stage", "public"},
    {"follow", "light.tree"},
    {"member"},
    {"links.join", "vectors"},
]


def module_name(path: Path) -> str:
    """Name a module of the package, without the package's own name."""
    return ".".join(path.relative_to(PACKAGE).with_suffix("").parts)


def imported(module: Path) -> set[str]:
    """Name the package's own modules that a module imports, for type checking, too."""
    tree = ast.parse(module.read_text())
    names = {node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) and node.module}
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
    graph = {
        module_name(path): imported(path) for path in PACKAGE.rglob("*.py") if path.name != "__init__.py"
    }
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
