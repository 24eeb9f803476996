"""`mimi-mmr agent`: the process that holds the account."""

from __future__ import annotations

import os
from contextlib import suppress
from typing import Annotated

import typer

from mimi_mmr.app.agent import launch
from mimi_mmr.app.agent.errors import NoAccount
from mimi_mmr.app.agent.home import Home
from mimi_mmr.app.agent.link import Link, NotRunning
from mimi_mmr.app.cli import passphrase, terminal
from mimi_mmr.app.cli.caller import Caller, HomeOption, PassphraseOption, command, failing

app = typer.Typer(
    no_args_is_help=True, help="The process that holds the account; commands start it by themselves."
)

Idle = Annotated[
    float | None,
    typer.Option("--idle", min=1, help="End after so many seconds without commands. Default: stay."),
]


@command(app)
def start(caller: Caller, idle: Idle = None) -> None:
    """Start it in the background, if it is not running."""
    if not launch.is_running(caller.home):
        if not caller.home.state.exists():
            raise NoAccount(f"there is no account in {caller.home.path} yet")
        caller.start(idle=idle)
    _show(caller)


@app.command()
def run(
    home: HomeOption = None,
    passphrase_file: PassphraseOption = None,
    idle: Idle = None,
    from_pipe: Annotated[bool, typer.Option("--from-pipe", hidden=True)] = False,
) -> None:
    """Run it here, in the foreground, for a service manager."""
    from mimi_mmr.app.agent.process import Opening, run_agent, run_from_pipe  # heavy

    found = Home.find(home)
    if from_pipe:
        raise typer.Exit(run_from_pipe(found))
    with failing():
        if not found.state.exists():
            raise NoAccount(f"there is no account in {found.path} yet")
        given = passphrase.given_passphrase(passphrase_file) or passphrase.ask_passphrase()
        os.environ.pop(launch.PASSPHRASE_VARIABLE, None)
        run_agent(
            found, Opening(given, idle=idle), lambda: terminal.say(f"the agent of {found.path} is ready")
        )


@command(app)
def status(caller: Caller) -> None:
    """Whether it is running, and as which process; it is not started."""
    _show(caller)


def _show(caller: Caller) -> None:
    found = {"running": False, "pid": None, "account": None, "home": str(caller.home.path)}
    try:
        with Link(caller.home) as link:
            found |= {"running": True} | link.ask("ping")
    except NotRunning:
        pass
    said = f"running, as process {found['pid']}" if found["running"] else "not running"
    caller.show(found, lambda _: terminal.say(said))
    if not found["running"]:
        raise typer.Exit(4)


@command(app)
def stop(caller: Caller) -> None:
    """End it. Nothing is lost; the next command that needs it starts it again."""
    found: dict[str, int | None] = {"pid": None}
    with suppress(NotRunning):
        found["pid"] = launch.stop(caller.home)
    caller.show(found, lambda view: terminal.say("stopped" if view["pid"] else "it was not running"))
