"""The `mimi-mmr` command, which runs providers and uses a person's account. Internal.

Exit status: 0 done; 1 refused, or failed; 2 a wrong argument or setting; 3 no such room, person, device or
message, or several of that name; 4 the state or the agent can't be used (a wrong passphrase, no account yet); 5 no
answer from a provider, try again; 6 nothing came in the time to wait; 130 interrupted.
"""

from __future__ import annotations

import sys
from importlib import import_module
from typing import Any

import typer
from typer.core import TyperCommand

from mimi_mmr.app.cli import failures, local, output, servers
from mimi_mmr.app.commands import NOUNS
from ohttp_relay.cli.plain_help import PlainCommand, PlainGroup
from ohttp_relay.cli.version_option import add_version_option

EPILOG = (__doc__ or "").partition("\n\n")[2].replace("\n", " ")


class _Noun(TyperCommand):
    """A noun in the list of commands. Its commands are imported only when it is used, so that `--help` is fast."""

    def make_context(self, *args: Any, **kwargs: Any) -> Any:
        """Return the context of the noun's real command or group."""
        module = import_module(f"mimi_mmr.app.cli.{self.name}")
        return typer.main.get_command(module.app).make_context(*args, **kwargs)


class _Root(PlainGroup):
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
    for command in part.app.registered_commands:
        command.cls = PlainCommand
        app.registered_commands.append(command)


add_version_option(app, "mimi-mmr")


def main() -> None:
    """Run the command line: the entry of the console script."""
    as_json = "--json" in sys.argv[1:]
    with output.checked(as_json):
        if as_json:
            sys.exit(_run_for_a_program())
        app()


def _run_for_a_program() -> int:
    """Run the command line; report a usage error as JSON, too. Return the exit status."""
    try:
        return app(standalone_mode=False) or 0
    except typer.Abort:
        code, message = failures.ABORTED, "nobody has answered or confirmed"
    except Exception as error:
        if not hasattr(
            error, "format_message"
        ):  # typer's errors of usage have one; their class has no public name
            raise
        code, message = failures.USAGE_ERROR, error.format_message()
    try:
        failures.report("", code, message, as_json=True)
    except typer.Exit as ending:
        return ending.exit_code


__all__ = ["app", "main"]
