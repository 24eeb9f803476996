"""`mimi-mmr agent` on the terminal. `run` starts the agent itself, so it is not a command that an agent runs."""

from __future__ import annotations

import os
from contextlib import suppress
from typing import Annotated, Any

import typer

from mimi_mmr.app.agent import launch
from mimi_mmr.app.agent.connection import PATIENCE, Connection, NoAnswer, NotRunning
from mimi_mmr.app.agent.home import Home
from mimi_mmr.app.cli import passphrase, terminal
from mimi_mmr.app.cli.failures import STATE, failing
from mimi_mmr.app.cli.from_models import Front, command_line
from mimi_mmr.app.cli.invocation import HomeOption, Invocation, PassphraseOption
from mimi_mmr.app.cli.options import JsonOption
from mimi_mmr.app.commands.agent import (
    IDLE_HELP,
    AgentResult,
    AgentStatus,
    StartAgent,
    StopAgent,
    StoppedResult,
)
from mimi_mmr.app.commands.errors import NoAccount
from mimi_mmr.app.commands.model import Command
from ohttp_relay.cli.plain_help import PlainCommand


def _start(invocation: Invocation, command: StartAgent) -> None:
    if not launch.is_running(invocation.home):
        invocation.check_state()
        invocation.start(idle=command.idle)
    _status(invocation, command)


def _status(invocation: Invocation, command: AgentStatus) -> None:
    found = AgentResult(running=False, pid=None, account=None, home=str(invocation.home.path)).model_dump()
    with suppress(NotRunning):
        found |= _ask(invocation, command)
    invocation.show(command, found, _show_agent)
    if not found["running"]:
        raise typer.Exit(STATE)


def _ask(invocation: Invocation, command: Command) -> dict[str, Any]:
    """Ask an agent for what it answers at once. Raise `NotRunning`, or an `AgentError` that says how to end it."""
    try:
        with Connection(invocation.home, timeout=PATIENCE) as connection:
            return dict(connection.ask(command.about.name))
    except NoAnswer:
        raise launch.hung(invocation.home, f"did not answer within {PATIENCE:g} s") from None


def _show_agent(found: AgentResult) -> None:
    terminal.say(f"running, as process {found.pid}" if found.running else "not running")


def _stop(invocation: Invocation, command: StopAgent) -> None:
    found = StoppedResult(pid=None).model_dump()
    try:
        found |= _ask(invocation, command)
    except NotRunning:
        pass
    else:
        launch.wait_for_end(invocation.home)
    invocation.show(command, found, _show_stopped)


def _show_stopped(found: StoppedResult) -> None:
    terminal.say("it was not running" if found.pid is None else "stopped")


app = command_line("agent", {StartAgent: Front(_start), AgentStatus: Front(_status), StopAgent: Front(_stop)})


@app.command(cls=PlainCommand)
def run(
    home: HomeOption = None,
    as_json: JsonOption = False,
    passphrase_file: PassphraseOption = None,
    idle: Annotated[float | None, typer.Option("--idle", min=1, help=IDLE_HELP)] = None,
    from_pipe: Annotated[bool, typer.Option("--from-pipe", hidden=True)] = False,
) -> None:
    """Run the agent here, in the foreground, for a service manager."""
    from mimi_mmr.app.agent.process import Opening, run_agent, run_from_pipe  # slow to import

    with failing("agent run", as_json):
        found = Home.find(home)
        if from_pipe:
            raise typer.Exit(run_from_pipe(found))
        if not found.state.exists():
            raise NoAccount(f"there is no account in {found.path} yet")
        given = passphrase.given_passphrase(passphrase_file) or passphrase.ask_passphrase()
        os.environ.pop(launch.PASSPHRASE_VARIABLE, None)
        opening = Opening(given, idle=idle)
        run_agent(found, opening, lambda: _ready(found, as_json))


def _ready(home: Home, as_json: bool) -> None:
    if as_json:
        terminal.show_json({"ready": True, "pid": os.getpid(), "home": str(home.path)})
    else:
        terminal.say(f"the agent of {home.path} is ready")
