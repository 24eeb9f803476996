"""The packages' source, read once: modules, what they import, the classes and functions they define."""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parents[2]
PACKAGES = ("treewrap", "ohttp_relay", "mimi_mmr")

Function = ast.FunctionDef | ast.AsyncFunctionDef


@dataclass(frozen=True)
class Module:
    """One module: its syntax tree, and what it imports of these packages and of anything else."""

    name: str
    path: Path = field(repr=False)
    tree: ast.Module = field(repr=False)
    own: frozenset[str] = field(repr=False)
    foreign: frozenset[str] = field(repr=False)

    @property
    def is_package(self) -> bool:
        """Whether it is a package's `__init__`."""
        return self.path.name == "__init__.py"

    @property
    def package(self) -> str:
        """The package it lies in, or is."""
        return self.name if self.is_package else self.name.rpartition(".")[0]

    @property
    def classes(self) -> list[ast.ClassDef]:
        """The classes at its top."""
        return [node for node in self.tree.body if isinstance(node, ast.ClassDef)]


def name_of(path: Path, root: Path) -> str:
    """Return a file's dotted name."""
    parts = path.relative_to(root).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def _imports(tree: ast.AST, package: str, known: set[str]) -> Iterator[str]:
    """Yield the full names of all that a module imports, wherever: inside functions and for type checkers too.

    Of a package, the submodule that is meant.
    """
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = package.split(".")[: len(package.split(".")) + 1 - node.level] if node.level else []
            module = ".".join([*above, *([node.module] if node.module else [])])
            for alias in node.names:
                inner = f"{module}.{alias.name}"
                yield inner if inner in known else module


def read(root: Path) -> Mapping[str, Module]:
    """Read all modules of the three packages under `root`, by name."""
    paths = {
        name_of(path, root): path for package in PACKAGES for path in sorted((root / package).rglob("*.py"))
    }
    found = {}
    for name, path in paths.items():
        tree = ast.parse(path.read_text())
        package = name if path.name == "__init__.py" else name.rpartition(".")[0]
        imported = set(_imports(tree, package, set(paths)))
        own = {other for other in imported if other.partition(".")[0] in PACKAGES}
        assert own <= set(paths), f"{name} imports {own - set(paths)}, which there is not"
        foreign = {other.partition(".")[0] for other in imported - own}
        found[name] = Module(name, path, tree, frozenset(own - {name}), frozenset(foreign))
    return found


@cache
def modules() -> Mapping[str, Module]:
    """Return the modules of this checkout."""
    return read(ROOT)


def arrows(found: Mapping[str, Module]) -> dict[str, set[str]]:
    """Return who imports whom, without a module's imports of the faces of packages that it lies in."""
    return {
        name: {other for other in module.own if not name.startswith(f"{other}.")}
        for name, module in found.items()
    }


def circles(graph: Mapping[str, set[str]]) -> list[list[str]]:
    """Return the sets of modules that import one another in a circle (Tarjan's strongly connected components)."""
    number: dict[str, int] = {}
    low: dict[str, int] = {}
    stack: list[str] = []
    found: list[list[str]] = []

    def visit(name: str) -> None:
        number[name] = low[name] = len(number)
        stack.append(name)
        for other in sorted(graph[name]):
            if other not in number:
                visit(other)
            if other in stack:
                low[name] = min(low[name], low[other])
        if low[name] == number[name]:
            at = stack.index(name)
            if len(stack) - at > 1:
                found.append(sorted(stack[at:]))
            del stack[at:]

    for name in sorted(graph):
        if name not in number:
            visit(name)
    return found


def longest_chain(graph: Mapping[str, set[str]]) -> list[str]:
    """Return the longest chain of modules each of which imports the next; a circle is walked once."""
    best: dict[str, list[str]] = {}
    walking: set[str] = set()

    def chain(name: str) -> list[str]:
        if name not in best:
            walking.add(name)
            below = [chain(other) for other in sorted(graph[name]) if other not in walking]
            walking.discard(name)
            best[name] = [name, *max(below, key=len, default=[])]
        return best[name]

    return max((chain(name) for name in sorted(graph)), key=len, default=[])


def bases(found: Mapping[str, Module]) -> dict[str, set[str]]:
    """Return for each class its direct bases, both as `module.Class`; bases of other libraries are left out."""
    classes = {f"{name}.{node.name}" for name, module in found.items() for node in module.classes}
    result: dict[str, set[str]] = {}
    for name, module in found.items():
        visible = {node.name: f"{name}.{node.name}" for node in module.classes}
        for node in ast.walk(module.tree):
            if isinstance(node, ast.ImportFrom) and node.module:
                visible |= {
                    alias.asname or alias.name: _defined(found, node.module, alias.name)
                    for alias in node.names
                }
        for node in module.classes:
            direct = {visible.get(_base_name(base), "") for base in node.bases}
            result[f"{name}.{node.name}"] = direct & classes
    return result


def _base_name(base: ast.expr) -> str:
    return ast.unparse(base.value if isinstance(base, ast.Subscript) else base)


def _defined(found: Mapping[str, Module], module: str, name: str, depth: int = 4) -> str:
    """Return where a name that is imported from a module, or a package's face, is defined."""
    source = found.get(module)
    if source is None or depth == 0 or any(node.name == name for node in source.classes):
        return f"{module}.{name}"
    for node in source.tree.body:
        if isinstance(node, ast.ImportFrom) and node.module:
            for alias in node.names:
                if (alias.asname or alias.name) == name:
                    return _defined(found, node.module, alias.name, depth - 1)
    return f"{module}.{name}"


def ancestors(name: str, direct: Mapping[str, set[str]]) -> set[str]:
    """Return all classes of ours that a class inherits from."""
    found: set[str] = set()
    due = list(direct[name])
    while due:
        base = due.pop()
        if base not in found:
            found.add(base)
            due += direct[base]
    return found


def functions(tree: ast.AST) -> Iterator[Function]:
    """Yield every function and method under a syntax tree."""
    for node in ast.walk(tree):
        if isinstance(node, Function):
            yield node
