"""Every error that can reach a person has, after every command, a hint that is true for it, or none."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
import typer

import mimi_mmr
from mimi_mmr.app.cli import app, failures
from mimi_mmr.app.commands import NOUNS
from mimi_mmr.app.commands.hints import HINTS, hint_for
from mimi_mmr.app.commands.table import COMMANDS
from mimi_mmr.errors import MmrError

PACKAGE = Path(mimi_mmr.__file__).parent
OPENING = {"account create", "device join"}  # there is no account before them
WITHOUT_ACCOUNT = OPENING | {"agent status", "agent stop", "account delete"}
QUOTED = re.compile(r"`mimi-mmr ([^`]*)`")
OPTION = re.compile(r"(?<![\w-])--[a-z][a-z-]*")
SUBJECTS = {  # words that are about something, and the nouns whose commands are about it
    r"\b(rooms?|members?|admin|link)\b": {"room", "asset"},
    r"\bcontact codes\b": {"contact", "room"},
    r"\bKeyPackages\b": {"contact", "room"},
}


def tree() -> dict[str, set[str]]:
    """Every command by its words, with its options."""
    found: dict[str, set[str]] = {}
    for name, command in typer.main.get_command(app).commands.items():  # type: ignore[attr-defined]
        if name not in NOUNS:
            found[name] = options(command)
            continue
        real: Any = typer.main.get_command(import_module(f"mimi_mmr.app.cli.{name}").app)
        inner = getattr(real, "commands", None)
        for verb, one in inner.items() if inner else [("", real)]:
            found[f"{name} {verb}".strip()] = options(one)
    return found


def options(command: Any) -> set[str]:
    return {flag for parameter in command.params for flag in parameter.opts if flag.startswith("--")}


TREE = tree()


def below(kind: type[MmrError]) -> Iterator[type[MmrError]]:
    yield kind
    for inner in kind.__subclasses__():
        yield from below(inner)


def errors() -> set[str]:
    """The code of every error class of the programs that people use."""
    for module in ("app.agent.process", "app.cli.agent", "client", "provider.app"):
        import_module(f"mimi_mmr.{module}")
    return {kind.code for kind in below(MmrError) if kind.__module__.startswith("mimi_mmr.")}


def test_the_walk_goes_over_everything() -> None:
    assert {" ".join(command.about.words) for command in COMMANDS.values()} - {""} <= set(TREE)
    assert len(TREE) > 40
    assert len(errors()) > 40


def test_every_error_has_its_row() -> None:
    assert set(HINTS) == errors() | {failures.USAGE_ERROR, failures.ABORTED, "demo"}
    assert set(failures.EXITS) <= set(HINTS)
    for hints in HINTS.values():
        for hint in hints:
            assert set(hint.after) <= set(TREE) | set(NOUNS)
            assert any(hint.fits(command) for command in TREE)


@pytest.mark.parametrize("code", HINTS)
def test_a_hint_is_true_after_each_command(code: str) -> None:
    for command, own in TREE.items():
        hint = hint_for(code, command)
        assert len(hint) < 200
        for suggested in QUOTED.findall(hint):
            check_command(suggested)
            words = " ".join(OPTION.split(suggested)[0].split()[:2])
            assert command not in OPENING or words in WITHOUT_ACCOUNT, (command, hint)
            assert words != command or OPTION.search(suggested), (command, hint)
        outside = QUOTED.sub("", hint)
        assert set(OPTION.findall(outside)) <= own, (command, hint)
        for words, nouns in SUBJECTS.items():
            if re.search(words, outside):
                assert command.partition(" ")[0] in nouns, (command, hint)


def check_command(typed: str) -> None:
    """Refuse a command that does not exist, or an option that it does not have."""
    words = typed.split()
    command = next((name for name in (" ".join(words[:2]), words[0]) if name in TREE), None)
    assert command is not None, typed
    assert set(OPTION.findall(typed)) <= TREE[command], typed


@pytest.mark.parametrize(
    ("code", "command", "wrong"),
    [
        ("not-allowed", "account create", "room"),  # the name is taken
        ("not-allowed", "device join", "room"),
        ("not-allowed", "room leave", "ask an admin"),  # who asks is the only one
        ("not-allowed", "asset put", "admin"),  # the provider has no asset host
        ("config", "account passphrase", "trust"),  # a file that can't be read
        ("ambiguous", "contact block", "id"),  # people have none
        ("system", "asset get", "version"),  # the disk is full
        ("peer", "account create", "status"),
        ("certificate", "account create", "account trust"),
        ("no-key-packages", "contact add", "publish"),
    ],
)
def test_hints_that_misled(code: str, command: str, wrong: str) -> None:
    assert wrong not in hint_for(code, command)


def texts() -> Iterator[tuple[str, str]]:
    """Every text in the code of commands and clients; a value in it is `…`."""
    for path in sorted([*(PACKAGE / "app").rglob("*.py"), *(PACKAGE / "client").rglob("*.py")]):
        parsed = ast.parse(path.read_text())
        for node in ast.walk(parsed):
            if isinstance(node, ast.JoinedStr):
                parts = (part.value if isinstance(part, ast.Constant) else "…" for part in node.values)
                yield path.name, "".join(map(str, parts))
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                yield path.name, node.value


def test_every_text_names_commands_and_options_that_exist() -> None:
    every = set().union(*TREE.values()) | options(typer.main.get_command(app)) | {"--help", "--from-pipe"}
    seen = 0
    for file, text in texts():
        for noun, verb, flags in re.findall(
            r"mimi-mmr ([a-z][a-z-]*)(?: ([a-z][a-z-]*))?((?: --[a-z-]+)*)", text
        ):
            if f"{noun} {verb}" in TREE:
                check_command(f"{noun} {verb}{flags.replace(' --help', '')}")
            else:
                assert noun in TREE or (noun in NOUNS and not verb) or noun == "in", (file, text)
            seen += 1
        assert set(OPTION.findall(text)) <= every, (file, text)
    assert seen > 20
