"""Fuzz one parser with atheris: `python tests/treewrap/fuzz_treewrap.py NAME [libFuzzer options]`.

A parser that raises anything but ParseError, or that reads one thing from two encodings, is a crash.
The bounded run that every test run makes is in test_treewrap_wire.py.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable
from typing import Protocol

from treewrap import (
    DeferredLeaf,
    LinkSnapshot,
    MemberUpdate,
    ParseError,
    PathQuery,
    Paths,
    PublicTree,
    TreeUpdate,
)
from treewrap.root import RootExtra


class Encodable(Protocol):
    def to_bytes(self) -> bytes: ...


PARSERS: dict[str, Callable[[bytes], Encodable]] = {
    "tree_update": TreeUpdate.from_bytes,
    "member_update": MemberUpdate.from_bytes,
    "public_tree": PublicTree.from_bytes,
    "deferred_leaf": DeferredLeaf.from_bytes,
    "path_query": PathQuery.from_bytes,
    "paths": Paths.from_bytes,
    "link_snapshot": LinkSnapshot.from_bytes,
    "root_extra": RootExtra.from_bytes,
}


def try_one(name: str, content: bytes) -> None:
    """Parse; whatever is accepted must encode to the very same bytes."""
    try:
        parsed = PARSERS[name](content)
    except ParseError:
        return
    assert parsed.to_bytes() == content


def main() -> None:
    name = sys.argv.pop(1)
    atheris = importlib.import_module("atheris")
    atheris.instrument_all()
    atheris.Setup(sys.argv, lambda content: try_one(name, content))
    atheris.Fuzz()


if __name__ == "__main__":
    main()
