"""The shape of the package: the core knows no network library, imports go down, nothing else of this house."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import ohttp_relay

FOLDER = Path(ohttp_relay.__file__).parent
CORE = (
    "bhttp",
    "bhttp_stream",
    "keys",
    "capsule",
    "chunked",
    "replay",
    "replay_shared",
    "freshness",
    "ranges",
    "cache",
)


def imports() -> dict[str, set[str]]:
    """Which module of the package imports which."""
    graph = {}
    for path in FOLDER.glob("*.py"):
        nodes = [node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.ImportFrom)]
        graph[path.stem] = {
            name
            for node in nodes
            if node.level == 1
            for name in ([node.module] if node.module else [alias.name for alias in node.names])
        }
    return graph


def test_there_are_no_circles() -> None:
    graph = imports()
    done: set[str] = set()
    while len(done) < len(graph):
        ready = {name for name, needs in graph.items() if name not in done and needs <= done}
        assert ready, f"a circle among {sorted(set(graph) - done)}"
        done |= ready


def test_the_core_needs_no_network_library() -> None:
    code = f"import sys, {', '.join(f'ohttp_relay.{name}' for name in CORE)}\nprint('aiohttp' in sys.modules)"
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert shown == "False\n"


def test_the_package_stands_alone() -> None:
    for path in FOLDER.glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) and not node.level else []
            assert not {name.partition(".")[0] for name in names} & {"mimi_mmr", "treewrap"}
