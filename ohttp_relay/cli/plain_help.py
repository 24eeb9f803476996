"""Commands and groups whose help has plain words for values: TEXT, NUMBER, FILE, a|b; and none for flags."""

from __future__ import annotations

from typing import Any

from typer.core import TyperArgument, TyperCommand, TyperGroup

WORDS = {
    "bool": "",
    "str": "TEXT",
    "int": "NUMBER",
    "float": "NUMBER",
    "int range": "NUMBER",
    "float range": "NUMBER",
    "file": "FILE",
    "dir": "DIRECTORY",
    "path": "PATH",
}


def _plain(parameters: list[Any]) -> list[Any]:
    for parameter in parameters:
        if not hasattr(parameter, "display_type"):
            continue  # a release of typer that has other words
        shown = None if isinstance(parameter, TyperArgument) else _word(parameter)
        parameter.display_type_rich = lambda ctx, shown=shown: shown(ctx) if shown else None
    return parameters


def _word(parameter: Any) -> Any:
    def shown(ctx: Any) -> str:
        label = parameter.display_type(ctx).strip("<>")
        return str(parameter.metavar or WORDS.get(label, label))

    return shown


class PlainCommand(TyperCommand):
    """A command with such help."""

    def get_params(self, ctx: Any) -> Any:
        """Return the parameters, in plain words."""
        return _plain(super().get_params(ctx))


class PlainGroup(TyperGroup):
    """A group with such help."""

    def get_params(self, ctx: Any) -> Any:
        """Return the parameters, in plain words."""
        return _plain(super().get_params(ctx))
