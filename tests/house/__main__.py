"""`make house`: measures of the code that are looked at, and not enforced.

A limit on size that a test enforces is met by cutting one thing into slices, so these are printed for people:
longest import chains, largest classes, class names that stand for two things, loose modules.
"""

from __future__ import annotations

import ast
import sys
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path

from tests.house.code import (
    PACKAGES,
    ROOT,
    Function,
    Module,
    ancestors,
    arrows,
    bases,
    circles,
    functions,
    longest_chain,
    read,
)

LONGEST_READABLE_CHAIN = 20
LARGE_CLASS = 400
MANY_METHODS = 30
FACES = {"__init__", "__main__"}


def main(root: Path) -> None:
    """Print the measures of the packages under `root`."""
    found = read(root)
    for package in PACKAGES:
        part = {name: module for name, module in found.items() if name.partition(".")[0] == package}
        graph = {name: {one for one in to if one in part} for name, to in arrows(part).items()}
        print(f"\n{package}: {len(part)} modules, {lines_of(part)} lines")
        chain = longest_chain(graph)
        print(f"  longest import chain: {len(chain)} (below {LONGEST_READABLE_CHAIN} reads well)")
        print("    " + " > ".join(name.removeprefix(f"{package}.") for name in chain))
        tied = circles(graph)
        print(f"  circles: {len(tied)}" + "".join(f"\n    {' '.join(one)}" for one in tied))
        loose = [name for name in part if name.count(".") == 1 and not part[name].is_package]
        print(f"  loose modules in its root: {len(loose)}")
        private = [name for name in part if name.rpartition(".")[2].startswith("_")]
        internal = [name for name in part if says_internal(found, name)]
        print(
            f"  modules marked private or in a package that says it is internal: {len({*private, *internal})}"
        )
    show_classes(found)
    show_functions(found)
    show_names(found)


def lines_of(part: Mapping[str, Module]) -> int:
    """Count lines of code, as the files have them."""
    return sum(len(module.path.read_text().splitlines()) for module in part.values())


def says_internal(found: Mapping[str, Module], name: str) -> bool:
    """Say whether a module lies in a package whose docstring has the word "internal"."""
    package = found[name].package
    while package:
        if package in found and "internal" in (ast.get_docstring(found[package].tree) or "").lower():
            return True
        package = package.rpartition(".")[0]
    return False


def show_classes(found: Mapping[str, Module]) -> None:
    """Print the largest classes, each together with its ancestors of ours, and the tallest towers."""
    direct = bases(found)
    nodes = {f"{name}.{node.name}": node for name, module in found.items() for node in module.classes}
    sizes = []
    for name in nodes:
        whole = [nodes[one] for one in (name, *ancestors(name, direct))]
        methods = {one.name for node in whole for one in node.body if isinstance(one, Function)}
        lines = sum((node.end_lineno or node.lineno) - node.lineno + 1 for node in whole)
        public = sum(1 for one in methods if not one.startswith("_"))
        sizes.append((lines, len(methods), public, len(whole) - 1, name))
    print(
        f"\nlargest classes, ancestors included ({LARGE_CLASS} lines or {MANY_METHODS} public methods: a question)"
    )
    for lines, methods, public, above, name in sorted(sizes, reverse=True)[:8]:
        print(f"  {lines:5} lines, {methods:3} methods ({public} public), {above} ancestors  {name}")
    tallest = max(sizes, key=lambda size: size[3])
    print(f"most ancestors: {tallest[3]} ({tallest[4]})")


def show_functions(found: Mapping[str, Module]) -> None:
    """Print the median function, and how many are above 50 lines."""
    lengths = sorted(
        (one.end_lineno or one.lineno) - one.lineno + 1
        for module in found.values()
        for one in functions(module.tree)
    )
    long = sum(1 for length in lengths if length > 50)
    print(f"\nfunctions: {len(lengths)}, median {lengths[len(lengths) // 2]} lines, {long} above 50")


def show_names(found: Mapping[str, Module]) -> None:
    """Print class names that several modules define, and module names that exist several times."""
    classes = defaultdict(list)
    files = defaultdict(list)
    for name, module in found.items():
        for node in module.classes:
            classes[node.name].append(name)
        last = name.rpartition(".")[2]
        if last not in FACES and not module.is_package:
            files[last].append(name)
    for what, names in (("class names", classes), ("module names", files)):
        twice = {one: where for one, where in sorted(names.items()) if len(where) > 1}
        print(f"\n{what} that stand for several things: {len(twice)}")
        for one, where in twice.items():
            print(f"  {one}: {', '.join(where)}")


if __name__ == "__main__":
    main(Path(sys.argv[1]).resolve() if len(sys.argv) > 1 else ROOT)
