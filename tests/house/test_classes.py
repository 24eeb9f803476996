"""No towers: a class has at most two ancestors of ours. What is public is said."""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping

import pytest

from tests.house.code import Module, ancestors, bases, modules

MOST_ANCESTORS = 2
ERRORS = ("treewrap.errors", "ohttp_relay.errors", "mimi_mmr.errors")
"""Errors form a small tree on purpose: the deeper a class, the more a caller can do about it."""


def towers(found: Mapping[str, Module]) -> dict[str, set[str]]:
    """Return the classes that have more ancestors of ours than they may, but for errors."""
    direct = bases(found)
    return {
        name: above
        for name in direct
        if len(above := ancestors(name, direct)) > MOST_ANCESTORS and not is_error(name, direct)
    }


def is_error(name: str, direct: Mapping[str, set[str]]) -> bool:
    """Say whether a class is an error of one of the packages."""
    return any(one.rpartition(".")[0] in ERRORS for one in (name, *ancestors(name, direct)))


def test_no_class_has_more_than_two_ancestors_of_ours() -> None:
    assert towers(modules()) == {}


def test_a_tower_is_found() -> None:
    source = "class A: ...\nclass B(A): ...\nclass C(B): ...\nclass D(C): ..."
    one = next(iter(modules().values()))
    planted = {"a.b": Module("a.b", one.path, ast.parse(source), frozenset(), frozenset())}
    assert set(towers(planted)) == {"a.b.D"}


# --- public names -------------------------------------------------------------------------------------------


def exported(module: Module) -> list[str] | None:
    """Return a module's `__all__`, if it has one."""
    for node in module.tree.body:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__":
            return list(ast.literal_eval(node.value))
    return None


def says_internal(module: Module) -> bool:
    """Say whether a package's docstring says that it is internal, or that only its `__all__` is public."""
    text = ast.get_docstring(module.tree) or ""
    return "Internal" in text or "internal" in text


def unsaid() -> Iterator[str]:
    """Yield the packages that neither export what is public in them nor say that they are internal."""
    for name, module in modules().items():
        if module.is_package and exported(module) is None and not says_internal(module):
            above = name.rpartition(".")[0]
            while above and not says_internal(modules()[above]):
                above = above.rpartition(".")[0]
            if not above:
                yield name


def test_a_package_says_what_is_public_in_it() -> None:
    assert list(unsaid()) == []


@pytest.mark.parametrize("package", ["treewrap", "ohttp_relay", "mimi_mmr"])
def test_a_face_names_each_public_thing_once_and_in_order(package: str) -> None:
    for name, module in modules().items():
        if name.startswith(package) and module.is_package and (names := exported(module)) is not None:
            assert len(names) == len(set(names)), name
            assert not [one for one in names if one.startswith("_") and one != "__version__"], name


def test_there_is_one_import_style() -> None:
    """Absolute imports, `from package.module import Name`."""
    for name, module in modules().items():
        for node in ast.walk(module.tree):
            if isinstance(node, ast.ImportFrom):
                assert node.level == 0, f"{name}:{node.lineno} is a relative import"
                assert [alias.name for alias in node.names] != ["*"], (
                    f"{name}:{node.lineno} imports everything"
                )
