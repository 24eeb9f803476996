"""The package stands alone, imports go down its floors only, and its page tells the truth."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import treewrap

PACKAGE = Path(treewrap.__file__).parent
FLOORS = [
    {"errors", "labels", "secret", "geometry"},
    {"codec"},
    {"suite", "links.records"},
    {"links.seals", "links.deferred", "links.counting", "nodes", "changes", "root"},
    {"links.rules", "wire", "rows", "state", "outcome"},
    {"rules", "verify"},
    {"stage", "follow", "public"},
    {"member", "light.paths"},
    {"light.tree"},
    {"links.join"},
    {"vectors"},
]
CORE_OF_LINKS = {"links.records", "links.seals", "links.rules", "links.deferred", "links.counting"}
TREES = {"nodes", "outcome", "stage", "follow", "verify", "public", "member"}


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


def graph() -> dict[str, set[str]]:
    """Map every module but the packages' faces to the modules that it imports."""
    return {module_name(path): imported(path) for path in PACKAGE.rglob("*.py") if path.name != "__init__.py"}


def test_imports_go_down_the_floors_only() -> None:
    modules, allowed = graph(), dict[str, set[str]]()
    below: set[str] = set()
    for floor in FLOORS:
        for module in floor:
            allowed[module] = set(below)
        below |= floor
    assert modules.keys() == below
    for module, uses in modules.items():
        assert uses <= allowed[module], f"{module}: {sorted(uses - allowed[module])}"


def test_the_wings_stand_apart() -> None:
    """The core knows neither the light tree nor how one joins; what it needs of links knows no tree."""
    modules = graph()
    core = {
        module for module in modules if not module.startswith(("light.", "links.")) and module != "vectors"
    }
    for module in core:
        assert not [other for other in modules[module] if other.startswith("light.")], module
        assert "links.join" not in modules[module], module
    for module in CORE_OF_LINKS:
        assert not modules[module] & TREES, module


def test_what_is_not_in_all_is_internal() -> None:
    assert "Public: the names in `__all__`. The modules are internal." in (treewrap.__doc__ or "")
    for inner in (treewrap.light, treewrap.links):
        assert "Internal" in (inner.__doc__ or "")
        assert not [name for name in vars(inner) if name[:1].isupper()], inner
    assert sorted(treewrap.__all__) == sorted(set(treewrap.__all__))


def test_no_class_has_more_than_two_ancestors_of_ours() -> None:
    for name in treewrap.__all__:
        thing = getattr(treewrap, name)
        if isinstance(thing, type):
            ours = [base for base in thing.__mro__[1:] if base.__module__.startswith("treewrap")]
            assert len(ours) <= 2, name


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
