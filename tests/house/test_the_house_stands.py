"""Imports go down the floors only, the protocol core does no I/O, and logs are written from fixed words."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGES = ("treewrap", "ohttp_relay", "mimi_mmr")
FLOORS: tuple[tuple[str, ...], ...] = (
    ("errors",),
    ("presentation",),
    ("uris",),
    ("crypto",),
    ("mls",),
    ("protocol",),
    ("hub",),
    ("member",),
    ("provider", "client"),
    ("app.commands",),
    ("app.agent",),
    ("lab",),
    ("app",),
    ("__main__",),
)
WITH_IO: set[str] = set()
CORE_ENDS = FLOORS.index(("provider", "client"))
FORBIDDEN = {"asyncio", "aiohttp", "sqlalchemy", "socket", "time", "ssl", "threading", "logging", "random"}


@dataclass(frozen=True)
class Module:
    """One module: what it imports of these packages, and of anything else."""

    name: str
    own: frozenset[str] = field(repr=False)
    foreign: frozenset[str] = field(repr=False)


def name_of(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imports(tree: ast.AST, package: str, known: set[str]) -> Iterator[str]:
    """Full names of all that a module imports, for types alone too; of a package, the submodule that is meant."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = (
                ".".join(package.split(".")[: len(package.split(".")) + 1 - node.level]) if node.level else ""
            )
            module = ".".join(part for part in (base, node.module or "") if part)
            for alias in node.names:
                inner = f"{module}.{alias.name}"
                yield inner if inner in known else module


@cache
def modules() -> dict[str, Module]:
    paths = {name_of(path): path for package in PACKAGES for path in sorted((ROOT / package).rglob("*.py"))}
    found = {}
    for name, path in paths.items():
        package = name if path.name == "__init__.py" else name.rpartition(".")[0]
        imported = set(imports(ast.parse(path.read_text()), package, set(paths)))
        own = {other for other in imported if other.partition(".")[0] in PACKAGES}
        assert own <= set(paths), own - set(paths)
        foreign = {other.partition(".")[0] for other in imported - own}
        found[name] = Module(name, frozenset(own - {name}), frozenset(foreign))
    return found


def group_of(name: str) -> str:
    """The group of a module of mimi_mmr: the longest one that it is or lies in."""
    inner = name.removeprefix("mimi_mmr.")
    groups = [group for floor in FLOORS for group in floor if inner == group or inner.startswith(f"{group}.")]
    assert groups, f"{name} is on no floor"
    return max(groups, key=len)


def floor_of(group: str) -> int:
    return next(number for number, floor in enumerate(FLOORS) if group in floor)


def test_there_is_something_to_look_at() -> None:
    assert {name.partition(".")[0] for name in modules()} == set(PACKAGES)
    assert "mimi_mmr.mls.ratchet.treemath" in modules()["mimi_mmr.mls.ratchet.node"].own
    assert any(module.own for name, module in modules().items() if name.startswith("ohttp_relay."))


def test_no_modules_import_one_another_in_a_circle() -> None:
    done: set[str] = set()

    def visit(name: str, above: tuple[str, ...]) -> None:
        assert name not in above, " -> ".join((*above[above.index(name) :], name))
        if name not in done:
            for other in sorted(modules()[name].own):
                if not name.startswith(f"{other}."):  # a package's own face, which its parts do not need
                    visit(other, (*above, name))
            done.add(name)

    for name in modules():
        visit(name, ())


@pytest.mark.parametrize("package", ["treewrap", "ohttp_relay"])
def test_what_is_useful_alone_stands_alone(package: str) -> None:
    others = [other for other in PACKAGES if other != package]
    for name, module in modules().items():
        if name.startswith(package):
            assert not [other for other in module.own if other.partition(".")[0] in others], name


def test_imports_go_down_the_floors_only() -> None:
    upwards = []
    for name, module in modules().items():
        if name.partition(".")[0] != "mimi_mmr" or name == "mimi_mmr":
            continue
        group = group_of(name)
        for other in module.own:
            if other == "mimi_mmr" or not other.startswith("mimi_mmr."):
                continue
            below = group_of(other)
            if below != group and floor_of(below) >= floor_of(group):
                upwards.append(f"{name} -> {other}")
    assert upwards == []


def test_every_floor_is_lived_on() -> None:
    groups = {group_of(name) for name in modules() if name.startswith("mimi_mmr.")}
    assert groups == {group for floor in FLOORS for group in floor}


def test_the_protocol_core_does_no_io_and_reads_no_clock() -> None:
    core = [
        module
        for name, module in modules().items()
        if name.startswith("mimi_mmr.")
        and floor_of(group_of(name)) < CORE_ENDS
        and group_of(name) not in WITH_IO
    ]
    assert len(core) > 30
    for module in core:
        assert not module.foreign & FORBIDDEN, module
        outside = {other for other in module.own if other.startswith("ohttp_relay")}
        assert outside <= {"ohttp_relay.hpke"}, module  # HPKE, which does no I/O either


def test_the_key_tree_does_no_io_and_reads_no_clock() -> None:
    for name, module in modules().items():
        if name.startswith("treewrap"):
            assert not module.foreign & FORBIDDEN, module


def test_stores_and_members_rooms_know_nothing_of_the_network() -> None:
    for name, module in modules().items():
        if name.startswith(("mimi_mmr.provider.store", "mimi_mmr.member", "mimi_mmr.hub")):
            assert not module.foreign & {"aiohttp", "ssl", "socket"}, module


# --- logs --------------------------------------------------------------------------------------------

LEVELS = {"debug", "info", "warning", "error", "exception", "critical", "log"}
MAY_BE_LOGGED = {
    "domain",
    "reason",
    "endpoint.template",
    "error.code",
    "type(error).__name__",
}


def log_calls() -> Iterator[tuple[str, ast.Call]]:
    for name in modules():
        path = ROOT.joinpath(*name.split("."))
        path = path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
        for node in ast.walk(ast.parse(path.read_text())):
            if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Attribute):
                continue
            if node.func.attr in LEVELS and ast.unparse(node.func.value) in ("log", "logger", "logging"):
                yield name, node


def test_log_lines_are_fixed_words_with_nothing_that_names_anybody() -> None:
    calls = list(log_calls())
    assert calls
    for name, call in calls:
        words, *arguments = call.args
        assert isinstance(words, ast.Constant), f"{name}: {ast.unparse(call)}"
        assert not call.keywords, f"{name}: {ast.unparse(call)}"
        assert call.func.attr != "exception", f"{name}: a traceback may hold anything"  # type: ignore[attr-defined]
        if name.startswith("mimi_mmr"):
            given = {ast.unparse(argument) for argument in arguments}
            assert given <= MAY_BE_LOGGED, f"{name}: {ast.unparse(call)}"


def test_nothing_is_printed_but_by_commands() -> None:
    for name in modules():
        path = ROOT.joinpath(*name.split("."))
        path = path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and ast.unparse(node.func) in ("print", "sys.stdout.write"):
                assert name.rpartition(".")[2] in ("cli", "run", "serve", "vectors"), f"{name}:{node.lineno}"
