"""`mimi-mmr contact`: who one is connected with."""

from __future__ import annotations

import sys
from typing import Annotated, Any, Literal

import typer

from mimi_mmr.app.cli import completion, terminal
from mimi_mmr.app.cli.caller import Caller, command

app = typer.Typer(no_args_is_help=True, help="People one is connected with, or wants to be.")

UserArgument = Annotated[
    str,
    typer.Argument(metavar="USER", help="bob, bob@b.example, or the URI.", autocompletion=completion.users),
]
STANDINGS = {"pinned": "pinned", "first-use": "trusted on first use"}


@command(app)
def code(
    caller: Caller,
    qr: Annotated[bool, typer.Option("--qr", help="As a QR code on the terminal, too.")] = False,
) -> None:
    """Show the code that others connect to this account with."""
    found = caller.ask("contact.code")

    def human(view: dict[str, Any]) -> None:
        if qr:
            import segno

            segno.make(view["code"], micro=False).terminal(out=sys.stdout, compact=True)
        terminal.say(view["code"])

    caller.show(found, human)


@command(app)
def add(
    caller: Caller,
    to: Annotated[
        str, typer.Argument(metavar="CODE", help="A contact code; with --pinless, name@domain or a URI.")
    ],
    pinless: Annotated[
        bool, typer.Option("--pinless", help="Without a code: trust whichever key answers first.")
    ] = False,
) -> None:
    """Ask somebody to connect. They see who asks; a refusal looks like no answer."""
    found = caller.ask("contact.add", to=to, pinless=pinless)

    def human(view: dict[str, Any]) -> None:
        terminal.say(f"Asked {terminal.person(view['user'])} to connect; it is done once they have accepted.")
        if not view["pinned"]:
            terminal.note("note: their key is trusted on first use; compare contact codes when you can")

    caller.show(found, human)


@command(app, "list")
def contacts(caller: Caller) -> None:
    """Contacts and requests, both ways."""

    def human(found: dict[str, Any]) -> None:
        rows = [[terminal.person(view["user"]), _standing(view)] for view in found["contacts"]]
        rows += [[terminal.person(view["user"]), "asked, no answer yet"] for view in found["requests_out"]]
        rows += [[terminal.person(view["user"]), "asks to connect"] for view in found["requests_in"]]
        terminal.show_table(
            ["who", ""], rows, empty="Nobody yet: mimi-mmr contact code, or mimi-mmr contact add CODE"
        )

    caller.show(caller.ask("contact.list"), human)


def _standing(view: dict[str, Any]) -> str:
    said = STANDINGS[view["standing"]]
    if view["blocked"]:
        return f"{said}, blocked"
    return said if view["ready"] else f"{said}, not ready for rooms yet"


@command(app)
def requests(caller: Caller) -> None:
    """Who wants to connect."""

    def human(found: list[dict[str, Any]]) -> None:
        rows = [[terminal.person(view["user"]), f"until {terminal.when(view['expires'])}"] for view in found]
        terminal.show_table(["who", ""], rows, empty="Nobody asks to connect.")

    caller.show(caller.ask("contact.requests"), human)


@command(app)
def accept(caller: Caller, user: UserArgument) -> None:
    """Accept a request to connect. The first time this waits until KeyPackages are made: up to a minute."""
    _do(caller, "contact.accept", "Accepted {}.", user=user)


@command(app)
def refuse(caller: Caller, user: UserArgument) -> None:
    """Refuse a request; whoever asked is not told."""
    _do(caller, "contact.refuse", "Refused {}, in silence.", user=user)


@command(app)
def cancel(caller: Caller, user: UserArgument) -> None:
    """Take back a request of one's own."""
    _do(caller, "contact.cancel", "The request to {} is taken back.", user=user)


@command(app)
def block(caller: Caller, user: UserArgument) -> None:
    """Neither hear a contact nor be reachable for them; they are not told. Other contacts get new keys."""
    _do(caller, "contact.block", "{} is blocked.", user=user)


@command(app)
def unblock(caller: Caller, user: UserArgument) -> None:
    """Hear a blocked contact's requests again."""
    _do(caller, "contact.unblock", "{} may ask to connect again.", user=user)


@command(app, "only-contacts")
def only_contacts(
    caller: Caller,
    setting: Annotated[Literal["on", "off"], typer.Argument(help="Whether strangers are refused.")],
) -> None:
    """Refuse requests of everybody who is no contact, in silence."""
    found = caller.ask("contact.only-contacts", on=setting == "on")
    caller.show(
        found,
        lambda view: terminal.say(
            f"Requests: {'of contacts only' if view['only_contacts'] else 'of everybody'}."
        ),
    )


def _do(caller: Caller, what: str, said: str, **given: Any) -> None:
    found: dict[str, Any] = caller.ask(what, **given)
    caller.show(found, lambda view: terminal.say(said.format(terminal.person(view["user"]))))
