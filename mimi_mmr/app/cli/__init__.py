"""The `mimi-mmr` command: providers to run, and one's own account to use.

Exit status: 0 done; 1 refused, or failed; 2 a wrong argument or setting; 3 no such room, person or file, or
several of that name; 4 the state or the agent can't be used (a wrong passphrase, no account yet); 5 no answer from
a provider, try again; 6 what was waited for has not come; 130 interrupted.
"""

from __future__ import annotations

import typer

from mimi_mmr.app.cli import account, agent, asset, contact, device, local, room, servers, status

EPILOG = (__doc__ or "").partition("\n\n")[2].replace("\n", " ")

app = typer.Typer(
    no_args_is_help=True,
    add_completion=True,
    pretty_exceptions_enable=False,  # they would show what variables hold
    help="Minimal metadata rooms for MIMI: messages across providers that don't learn who talks to whom.",
    epilog=EPILOG,
)
for part in (servers, local, status):
    app.registered_commands += part.app.registered_commands
for name, group in {
    "account": account,
    "device": device,
    "contact": contact,
    "room": room,
    "asset": asset,
    "agent": agent,
}.items():
    app.add_typer(group.app, name=name)


def main() -> None:
    """The console script's entry."""
    app()


__all__ = ["app", "main"]
