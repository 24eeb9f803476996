"""The shape of the package: imports, public names, and a protocol core that knows no network library."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from functools import cache
from importlib import import_module
from pathlib import Path

import ohttp_relay

FOLDER = Path(ohttp_relay.__file__).parent
ROOT = FOLDER.parent
CORE = ("bhttp", "hpke", "keys", "capsule")
"""Folders that load without a network library."""

WITHOUT_NETWORK = (
    "ohttp_relay.gateway.replay",
    "ohttp_relay.gateway.shared_replay",
    "ohttp_relay.download.cache",
    "ohttp_relay.download.freshness",
    "ohttp_relay.download.ranges",
    "ohttp_relay.transport.dates",
    "ohttp_relay.transport.problems",
)
"""Modules in other folders that import no network library, nor anything that does."""

LONGEST_CHAIN = 14


def name_of(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


@cache
def trees() -> dict[str, ast.Module]:
    return {name_of(path): ast.parse(path.read_text()) for path in sorted(FOLDER.rglob("*.py"))}


def imported(tree: ast.Module) -> set[str]:
    """All that a module imports, also where only a type checker looks."""
    found: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, "imports are absolute"
            inner = {f"{node.module}.{alias.name}" for alias in node.names}
            modules = inner & set(trees())
            found |= modules or {node.module or ""}
            if len(modules) < len(inner):
                found.add(node.module or "")
    return found


@cache
def graph() -> dict[str, set[str]]:
    """Which module of the package imports which."""
    return {name: imported(tree) & set(trees()) - {name} for name, tree in trees().items()}


def below(name: str, above: tuple[str, ...] = ()) -> list[str]:
    """The longest chain of imports that starts here.  Fails for a circle."""
    assert name not in above, " -> ".join((*above[above.index(name) :], name))
    chains = [below(other, (*above, name)) for other in sorted(graph()[name])]
    return [name, *max(chains, key=len, default=[])]


def test_there_are_no_circles_and_chains_are_short() -> None:
    assert len(graph()) > 50
    chain = max((below(name) for name in graph()), key=len)
    assert 3 < len(chain) <= LONGEST_CHAIN, " -> ".join(chain)


def test_the_protocol_loads_without_a_network_library() -> None:
    names = ", ".join(f"ohttp_relay.{folder}" for folder in CORE)
    code = f"import sys, ohttp_relay, {names}\nprint('aiohttp' in sys.modules or 'asyncio' in sys.modules)"
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert shown == "False\n"


def test_parts_of_gateway_and_proxy_import_no_network_library() -> None:
    for name in WITHOUT_NETWORK:
        seen: set[str] = set()
        waiting = [name]
        while waiting:
            at = waiting.pop()
            if at not in seen:
                seen.add(at)
                assert not {"aiohttp", "yarl", "socket", "ssl"} & imported(trees()[at]), (name, at)
                waiting += graph()[at]


def test_the_package_stands_alone() -> None:
    for name, tree in trees().items():
        assert not {other.partition(".")[0] for other in imported(tree)} & {"mimi_mmr", "treewrap"}, name


def test_what_is_public_is_in_the_face_of_its_package() -> None:
    loose = {name for name in trees() if name.count(".") == 1 and not (FOLDER / name.split(".")[1]).is_dir()}
    assert loose == {f"ohttp_relay.{name}" for name in ("__main__", "errors", "secret")}
    for folder in sorted(path for path in FOLDER.iterdir() if (path / "__init__.py").exists()):
        package = import_module(f"ohttp_relay.{folder.name}")
        assert package.__all__
        assert len(set(package.__all__)) == len(package.__all__)
        for name in package.__all__:
            assert getattr(package, name) is not None
        assert "Internal but for" in (package.__doc__ or ""), folder


def test_the_names_of_the_package_are_those_a_type_checker_sees() -> None:
    tree = trees()["ohttp_relay"]
    (branch,) = (node for node in tree.body if isinstance(node, ast.If))
    seen = {alias.name for node in branch.body if isinstance(node, ast.ImportFrom) for alias in node.names}
    assert seen == set(ohttp_relay.__all__)
    for name in ohttp_relay.__all__:
        assert getattr(ohttp_relay, name) is not None


def test_an_unknown_name_is_an_attribute_error() -> None:
    assert not hasattr(ohttp_relay, "Unknown")


def ancestors(kind: type) -> set[type]:
    return {base for base in kind.__mro__[1:] if base.__module__.startswith("ohttp_relay")}


def test_no_class_has_more_than_two_ancestors_of_this_package() -> None:
    for name in trees():
        if name == "ohttp_relay.__main__":
            continue
        for kind in vars(import_module(name)).values():
            if isinstance(kind, type) and kind.__module__ == name and not issubclass(kind, Exception):
                assert len(ancestors(kind)) <= 2, kind


def test_one_docstring_mood() -> None:
    """A function's docstring is an imperative: no third person, no article, no noun phrase."""
    for name, tree in trees().items():
        for node in ast.walk(tree):
            if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                continue
            text = ast.get_docstring(node)
            if text is None or any("property" in ast.unparse(item) for item in node.decorator_list):
                continue
            first = text.split()[0]
            assert re.fullmatch(r"[A-Z][a-z]+[,.;]?|GET|POST", first), f"{name}: {node.name}: {text}"
            assert not (first.endswith("s") and first not in ("Pass", "Process", "Address")), (
                f"{name}: {text}"
            )
            assert first not in ("A", "An", "The", "What", "Whether", "Where", "One"), f"{name}: {text}"
