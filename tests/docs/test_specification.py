"""The specification of minimal metadata rooms has every struct, label and limit of the code, and no other."""

from __future__ import annotations

import ast
import importlib
import re
from functools import cache

from docs import generate
from mimi_mmr.presentation import Struct
from mimi_mmr.protocol.content import ContentKind
from mimi_mmr.protocol.room.requests import UpdateCode, UpdateRoomResponse
from tests.docs.pages import ROOT, table

PAGE = ROOT / "docs" / "specs" / "mmr.md"
TEXT = PAGE.read_text()
LABELS = TEXT.partition("\n## Labels\n")[2].partition("\n## ")[0]
UNITS = {"s": 1, "days": 86400, "bytes": 1, "KiB": 1 << 10, "MiB": 1 << 20}
# What stays in one process or its vault, and RFC 9420's own structs.
NOT_ON_THE_WIRE = re.compile(r"Saved|LeafProblem|Notice$")


def of_the_wire() -> dict[str, type[Struct]]:
    """Structs that travel, and are this project's."""
    return {
        name: kind
        for name, kind in generate.structs().items()
        if not kind.__module__.startswith("mimi_mmr.mls.") and not NOT_ON_THE_WIRE.match(name)
    }


def test_every_struct_is_shown_once() -> None:
    shown = re.findall(r"^\} (\w+);", TEXT, re.MULTILINE)
    assert sorted(shown) == sorted(of_the_wire())


def test_what_is_kept_is_not_taken_for_what_travels() -> None:
    kept = [kind for name, kind in generate.structs().items() if NOT_ON_THE_WIRE.match(name)]
    assert kept
    for kind in kept:
        assert kind.__module__.startswith(("mimi_mmr.client.", "mimi_mmr.member.")), kind


def test_the_answer_that_is_shown_by_hand_is_as_it_travels() -> None:
    """Its fields depend on its code, so it declares no layout to generate from."""
    block = TEXT[TEXT.index("enum { SUCCESS(0)") : TEXT.index("} UpdateRoomResponse;")]
    assert block.startswith(
        f"enum {{ {', '.join(f'{one.name}({one.value})' for one in UpdateCode)}, (255) }}"
    )
    for code, tail in (
        (UpdateCode.SUCCESS, bytes(7) + b"\x05"),
        (UpdateCode.WRONG_EPOCH, bytes(7) + b"\x05"),
        (UpdateCode.INVALID_PROPOSAL, b"\x00"),
        (UpdateCode.NOT_ALLOWED, b""),
    ):
        number = 5 if len(tail) == 8 else 0
        answer = UpdateRoomResponse(code, "words", "code", number)
        assert answer.to_bytes() == bytes([code]) + b"\x05words" + b"\x04code" + tail
        assert (f"case {code.name}:" in block) is bool(tail)


def test_limits_are_the_codes() -> None:
    rows = table(PAGE, "## Limits")
    assert len(rows) > 20
    for what, constant, value in rows:
        module, _, name = constant.strip("`").rpartition(".")
        number, _, unit = value.partition(" ")
        said = int(number.replace(",", "")) * UNITS[unit or "s"]
        assert getattr(importlib.import_module(module), name) == said, what


def test_every_kind_of_message_is_listed() -> None:
    rows = [kind.strip("`") for kind, _, _ in table(PAGE, "## Application messages") if kind.startswith("`")]
    assert sorted(rows) == sorted(kind.name for kind in ContentKind)


# --- labels ------------------------------------------------------------------------------------------


@cache
def literals() -> list[tuple[str, str | bytes]]:
    """(module, literal) for every string and byte string in mimi_mmr; docstrings too, which do no harm here."""
    found = []
    for path in sorted((ROOT / "mimi_mmr").rglob("*.py")):
        if "lab" in path.relative_to(ROOT).parts:
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Constant) and isinstance(node.value, (str, bytes)):
                found.append((path.stem, node.value))
    return found


@cache
def arguments(*functions: str) -> set[str]:
    """String arguments of calls of these functions or methods; a name stands for its module's constant."""
    found: set[str] = set()
    for path in (ROOT / "mimi_mmr").rglob("*.py"):
        tree = ast.parse(path.read_text())
        constants = {
            node.targets[0].id: node.value.value
            for node in tree.body
            if isinstance(node, ast.Assign)
            and isinstance(node.targets[0], ast.Name)
            and isinstance(node.value, ast.Constant)
        }
        for call in ast.walk(tree):
            if not isinstance(call, ast.Call):
                continue
            name = call.func.attr if isinstance(call.func, ast.Attribute) else getattr(call.func, "id", "")
            if name in functions:
                values = (
                    one.value if isinstance(one, ast.Constant) else constants.get(getattr(one, "id", ""))
                    for one in call.args[:2]
                )
                found |= {value for value in values if isinstance(value, str)}
    return found


def section(beginning: str) -> set[str]:
    """Backticked words of the paragraph of the labels that begins so."""
    paragraph = LABELS[LABELS.index(beginning) :].partition("\n\n")[0]
    return set(re.findall(r"`([^`]+)`", paragraph))


def test_every_signature_label_is_listed() -> None:
    used = {value for _, value in literals() if isinstance(value, str) and re.fullmatch(r"\w+TBS", value)}
    labels = {
        label
        for row in table(PAGE, "## Labels")
        for label in re.findall(r"`(\w+TBS)`", row[0].partition(", over")[0])
    }
    assert labels == used


def test_every_derivation_and_purpose_is_listed() -> None:
    derived = arguments("expand_with_label", "_expand")
    assert section("Derivations") == derived
    sealed = arguments("seal", "open") - {"rb", "r", "w", "x"}
    assert section("Purposes") == {word for word in sealed if " " in word}


def test_every_prefix_of_a_hash_is_listed() -> None:
    used = {
        value.decode().strip()
        for _, value in literals()
        if isinstance(value, bytes) and re.match(rb"MIMI-MMR 1\.0 \w", value)
    }
    assert section("Hashes with a prefix") == used
