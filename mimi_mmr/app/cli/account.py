"""`mimi-mmr account` on the terminal."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import typer

from mimi_mmr.app.agent import launch
from mimi_mmr.app.agent.connection import Refused
from mimi_mmr.app.agent.home import Home
from mimi_mmr.app.cli import files, terminal
from mimi_mmr.app.cli.from_models import Front, command_line, shown_by
from mimi_mmr.app.cli.invocation import Invocation
from mimi_mmr.app.commands.account import (
    AccountResult,
    ChangePassphrase,
    ChangeTrust,
    CreateAccount,
    DeleteAccount,
    DeletedResult,
    NewDevice,
    ShowAccount,
    TrustResult,
)
from mimi_mmr.app.commands.agent import AgentResult, AgentStatus
from mimi_mmr.app.commands.errors import TrustUnusable


def show_account(account: AccountResult) -> None:
    """Show an account to a person."""
    terminal.show_fields(
        [
            ("user", terminal.person(account.user)),
            ("device", account.device),
            ("provider", account.provider),
            ("contact code", account.contact_code),
            ("requests", "from contacts only" if account.only_contacts else "from everybody"),
        ]
    )


def open_account(invocation: Invocation, command: NewDevice) -> None:
    """Check that the provider's CA is there, start an agent on a new state, and run the command in it."""
    if not (command.trust / f"{command.domain}.pem").is_file():
        raise TrustUnusable(f"--trust: expected {command.domain}.pem in {command.trust}")
    anchors = files.read_trust(command.trust, command.tls_ca)
    with _new_home(invocation.home):
        invocation.start_new()
        invocation.show(command, invocation.ask(command, content=anchors), show_account)


@contextmanager
def _new_home(home: Home) -> Iterator[None]:
    """Delete the home again if it was made here, and the agent refused to begin anything in it."""
    was_there = home.path.exists()
    try:
        yield
    except Refused:
        if not was_there and not home.state.exists():
            launch.wait_for_end(home)
            home.remove()
        raise


def _trust(invocation: Invocation, command: ChangeTrust) -> None:
    result = invocation.ask(command, content=files.read_trust(command.trust, command.tls_ca))
    launch.wait_for_end(invocation.home)
    invocation.show(command, result, _show_trust)


def _show_trust(found: TrustResult) -> None:
    terminal.say(f"Trusted from the next command on: {', '.join(found.domains)}.")


def _connect(invocation: Invocation) -> None:
    invocation.connect().close()  # which asks for the old passphrase before anybody types the new one


_DELETE = {
    None: "Everything of this account is then gone, for good. Delete it?",
    "account": "The account that was begun here is not finished. If its registration has reached the provider, the"
    " name stays taken there, and nobody can use it any more. Delete what is here?",
    "device": "This device of the account was begun here, and is not finished. If another device has added it,"
    " remove it there. Delete what is here?",
}


def _delete(invocation: Invocation, command: DeleteAccount) -> None:
    if not command.yes:
        status = AgentStatus()
        found: AgentResult = status.about.result_from_json(invocation.ask(status))
        typer.confirm(_DELETE[found.unfinished], abort=True, err=True)
    result = invocation.ask(command)
    launch.wait_for_end(invocation.home)
    invocation.show(command, result, _show_deleted)


def _show_deleted(deleted: DeletedResult) -> None:
    for problem in deleted.problems:
        terminal.note(f"note: a room could not be left: {problem}")
    terminal.say(f"{terminal.person(deleted.user)} is deleted.")


_changed = shown_by(lambda _: terminal.say("The state opens with the new passphrase from now on."))
app = command_line(
    "account",
    {
        CreateAccount: Front(open_account),
        ShowAccount: shown_by(show_account),
        ChangeTrust: Front(_trust),
        ChangePassphrase: Front(_changed.run, before=_connect),
        DeleteAccount: Front(_delete),
    },
)
