"""Every public thing has its docstring, in one mood: a function's begins with what it does."""

from __future__ import annotations

import ast
from collections.abc import Iterator

import pytest

from tests.house.code import PACKAGES, Function, modules

NOT_VERBS = {
    *("a", "an", "the", "this", "these", "that", "those", "what", "whatever", "whether", "which", "who"),
    *(
        "whose",
        "whom",
        "how",
        "where",
        "when",
        "why",
        "of",
        "as",
        "for",
        "from",
        "in",
        "on",
        "at",
        "by",
        "with",
    ),
    *(
        "one",
        "one's",
        "every",
        "everybody",
        "everything",
        "each",
        "all",
        "some",
        "somebody",
        "nothing",
        "nobody",
    ),
    *(
        "it",
        "its",
        "their",
        "your",
        "his",
        "her",
        "more",
        "no",
        "not",
        "to",
        "there",
        "if",
        "inside",
        "raises",
    ),
}
OWN_WORDS = {"property", "cached_property", "setter"}


def public_functions(tree: ast.AST) -> Iterator[Function]:
    """Yield functions and methods whose docstring says what they do; a property's says what it is."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef):
            for one in node.body:
                if isinstance(one, Function) and not one.name.startswith("__"):
                    words = {ast.unparse(decorator).rpartition(".")[2] for decorator in one.decorator_list}
                    if not words & OWN_WORDS:
                        yield one


def wrong_mood(tree: ast.AST) -> list[tuple[int, str]]:
    """Return the lines of docstrings that do not begin with a verb, with their first words."""
    found = []
    for node in public_functions(tree):
        text = ast.get_docstring(node)
        if text and (first := text.split()[0].strip(".,:;`\"'")).lower() in NOT_VERBS:
            found.append((node.lineno, f"{node.name}: {first}"))
    return found


@pytest.mark.parametrize("package", PACKAGES)
def test_the_docstring_of_a_function_begins_with_a_verb(package: str) -> None:
    wrong = [
        f"{name}:{line} {what}"
        for name, module in modules().items()
        if name.partition(".")[0] == package
        for line, what in wrong_mood(module.tree)
    ]
    assert wrong == [], "\n".join(wrong)


def test_another_mood_is_found() -> None:
    assert wrong_mood(ast.parse('def f():\n    """The length."""')) == [(1, "f: The")]
    assert wrong_mood(ast.parse('def f():\n    """Return the length."""')) == []
