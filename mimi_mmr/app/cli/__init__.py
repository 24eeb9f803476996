"""The `mimi-mmr` command, which runs providers and uses a person's account. Internal.

Exit status: 0 done; 1 refused, or failed; 2 a wrong argument or setting; 3 no such room, person or file, or
several of that name; 4 the state or the agent can't be used (a wrong passphrase, no account yet); 5 no answer from
a provider, try again; 6 nothing came in the time to wait; 130 interrupted.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

import typer
from typer.core import TyperCommand, TyperGroup

from mimi_mmr.app.cli import local, output, servers
from mimi_mmr.app.commands import NOUNS

EPILOG = (__doc__ or "").partition("\n\n")[2].replace("\n", " ")


class _Noun(TyperCommand):
    """A noun in the list of commands. Its commands are imported only when it is used, so that `--help` is fast."""

    def make_context(self, *args: Any, **kwargs: Any) -> Any:
        """Return the context of the noun's real command or group."""
        module = import_module(f"mimi_mmr.app.cli.{self.name}")
        return typer.main.get_command(module.app).make_context(*args, **kwargs)


class _Root(TyperGroup):
    """The commands that run servers, followed by the nouns."""

    def __init__(self, **attributes: Any) -> None:
        super().__init__(**attributes)
        for noun, help_ in NOUNS.items():
            self.add_command(_Noun(noun, help=help_))


app = typer.Typer(
    cls=_Root,
    no_args_is_help=True,
    add_completion=True,
    pretty_exceptions_enable=False,  # they would show the values of variables
    help="Minimal metadata rooms for MIMI: messages across providers that don't learn who talks to whom.",
    epilog=EPILOG,
)
for part in (servers, local):
    app.registered_commands += part.app.registered_commands


def main() -> None:
    """Run the command line: the entry of the console script."""
    with output.checked():
        app()


__all__ = ["app", "main"]
