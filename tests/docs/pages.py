"""The project's pages, and what stands in them."""

from __future__ import annotations

import ast
import re
from dataclasses import dataclass
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parents[2]
FRONT = ("README.md", "CONTRIBUTING.md", "SECURITY.md", "CHANGELOG.md")
BESIDE = (
    "treewrap/README.md",
    "ohttp_relay/README.md",
    "mimi_mmr/app/cli/README.md",
    "tests/vectors/README.md",
)
PAGES = [
    *(ROOT / name for name in FRONT),
    *sorted((ROOT / "docs").rglob("*.md")),
    *(ROOT / name for name in BESIDE),
]
_BLOCK = re.compile(r"^(?:<!-- (run|parsed): ([^>]*) -->\n)?```sh\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_FENCE = re.compile(r"^```.*?^```$", re.MULTILINE | re.DOTALL)


def name_of(page: Path) -> str:
    """As tests are named: relative to the repository."""
    return page.relative_to(ROOT).as_posix()


@dataclass(frozen=True)
class Block:
    """A block of shell commands: run by the test `word`, parsed for the reason `word`, or typed."""

    page: Path
    number: int
    kind: str
    word: str
    commands: str

    def __str__(self) -> str:
        return f"{name_of(self.page)}:{self.number}"


def shell_blocks(page: Path) -> list[Block]:
    """A page's blocks: a typed one begins with `# terminal N: …`, others say above themselves who runs them."""
    found = []
    for number, (kind, word, commands) in enumerate(_BLOCK.findall(page.read_text()), start=1):
        typed = "typed" if commands.startswith("# terminal ") else ""
        found.append(Block(page, number, kind or typed, word, commands))
    return found


def run_by(page: str, test: str) -> list[str]:
    """The blocks of a page that name this test."""
    found = [one.commands for one in shell_blocks(ROOT / page) if one.word == test]
    assert found, (page, test)
    return found


def prose(page: Path) -> str:
    """A page without its fenced blocks."""
    return _FENCE.sub("", page.read_text())


def table(page: Path, heading: str) -> list[list[str]]:
    """The rows of the first table under a heading, without its head."""
    rows: list[list[str]] = []
    for line in page.read_text().partition(f"\n{heading}\n")[2].splitlines():
        if line.startswith("| "):
            rows.append([cell.strip() for cell in line.strip("|").split("|")])
        elif rows or line.startswith("## "):
            break
    assert rows, heading
    return rows[2:]


@cache
def definitions(path: Path) -> frozenset[str]:
    """Functions, classes, constants and methods (`Class.method`) that a module defines."""
    found: set[str] = set()
    for node in ast.parse(path.read_text()).body:
        match node:
            case ast.ClassDef():
                found.add(node.name)
                found |= {f"{node.name}.{one}" for one in _inside(node)}
            case ast.FunctionDef() | ast.AsyncFunctionDef():
                found.add(node.name)
            case ast.Assign():
                found |= {
                    one.id for target in node.targets for one in ast.walk(target) if isinstance(one, ast.Name)
                }
            case ast.AnnAssign(target=ast.Name(id=name)):
                found.add(name)
    return frozenset(found)


def _inside(kind: ast.ClassDef) -> set[str]:
    methods = {node.name for node in kind.body if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef))}
    return methods | {
        node.target.id
        for node in kind.body
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name)
    }


def test_exists(name: str) -> bool:
    """Whether `tests/…/test_x.py::test_y` is there."""
    path, _, function = name.partition("::")
    file = ROOT / path
    return file.is_file() and (not function or function in definitions(file))


test_exists.__test__ = False  # type: ignore[attr-defined]  # a question, not a test
