"""The option `--version` of a command line."""

from __future__ import annotations

from importlib.metadata import version
from typing import Annotated

import typer

_DISTRIBUTION = "mimi-mmr"


def add_version_option(app: typer.Typer, program: str) -> None:
    """Give a group of commands the option `--version`, which shows this program's name and version."""

    def show(wanted: bool) -> None:
        if wanted:
            typer.echo(f"{program} {version(_DISTRIBUTION)}")
            raise typer.Exit

    option = typer.Option("--version", help="Show the version and exit.", callback=show, is_eager=True)

    def options(version: bool = False) -> None:
        pass  # the option's callback does it; typer would show a docstring as the program's help

    options.__annotations__["version"] = Annotated[bool, option]
    app.callback()(options)
