"""Logs are written from fixed words that name nobody; nothing is printed but by commands."""

from __future__ import annotations

import ast
from collections.abc import Iterator

from tests.house.code import modules

LEVELS = {"debug", "info", "warning", "error", "exception", "critical", "log"}
MAY_BE_LOGGED = {
    "domain",
    "role",
    "swept",
    "found.number",
    "latest(role).number",
    "reason",
    "endpoint.template",
    "error.code",
    "type(error).__name__",
}


def log_calls() -> Iterator[tuple[str, ast.Call]]:
    for name, module in modules().items():
        for node in ast.walk(module.tree):
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
    for name, module in modules().items():
        for node in ast.walk(module.tree):
            if isinstance(node, ast.Call) and ast.unparse(node.func) in ("print", "sys.stdout.write"):
                assert name.rpartition(".")[2] in ("cli", "run", "serve", "vectors"), f"{name}:{node.lineno}"
