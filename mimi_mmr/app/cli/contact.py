"""`mimi-mmr contact` on the terminal."""

from __future__ import annotations

import sys

from mimi_mmr.app.cli import terminal
from mimi_mmr.app.cli.from_models import Front, command_line, shown_by
from mimi_mmr.app.cli.invocation import Invocation
from mimi_mmr.app.commands.contact import (
    AcceptRequest,
    AddContact,
    BlockContact,
    CancelRequest,
    ContactCodeResult,
    ContactResult,
    ContactsResult,
    IncomingResult,
    ListContacts,
    ListRequests,
    OnlyContacts,
    OnlyContactsResult,
    OutgoingResult,
    RefuseRequest,
    ShowCode,
    UnblockContact,
)

STANDINGS = {"pinned": "pinned", "first-use": "trusted on first use"}


def _code(invocation: Invocation, command: ShowCode) -> None:
    def human(found: ContactCodeResult) -> None:
        if command.qr:
            import segno

            segno.make(found.code, micro=False).terminal(out=sys.stdout, compact=True)
        terminal.say(found.code)

    invocation.show(command, invocation.ask(command), human)


def _show_asked(asked: OutgoingResult) -> None:
    terminal.say(
        f"Asked {terminal.person(asked.user)} to connect. You are connected once they have accepted."
    )
    if not asked.pinned:
        terminal.note("note: their key is trusted on first use; compare contact codes when you can")


def _show_contacts(found: ContactsResult) -> None:
    rows = [[terminal.person(contact.user), _standing(contact)] for contact in found.contacts]
    rows += [[terminal.person(request.user), "asked, no answer yet"] for request in found.requests_out]
    rows += [[terminal.person(request.user), "asks to connect"] for request in found.requests_in]
    terminal.show_table(
        ["who", "standing"], rows, empty="Nobody yet: mimi-mmr contact code, or mimi-mmr contact add CODE"
    )


def _standing(contact: ContactResult) -> str:
    said = STANDINGS[contact.standing]
    if contact.blocked:
        return f"{said}, blocked"
    if contact.room is None:
        return f"{said}, not connected: mimi-mmr contact add CODE connects again"
    return said if contact.ready else f"{said}, not ready for rooms yet"


def _show_requests(found: list[IncomingResult]) -> None:
    rows = [[terminal.person(request.user), f"until {terminal.when(request.expires)}"] for request in found]
    terminal.show_table(["who", "answer"], rows, empty="Nobody asks to connect.")


def _show_only_contacts(found: OnlyContactsResult) -> None:
    terminal.say(f"Requests: {'of contacts only' if found.only_contacts else 'of everybody'}.")


def _done(said: str) -> Front:
    """Return a front that prints this text about the user in the result."""

    def human(result: ContactResult | IncomingResult | OutgoingResult) -> None:
        terminal.say(said.format(terminal.person(result.user)))

    return shown_by(human)


app = command_line(
    "contact",
    {
        ShowCode: Front(_code),
        AddContact: shown_by(_show_asked),
        ListContacts: shown_by(_show_contacts),
        ListRequests: shown_by(_show_requests),
        AcceptRequest: _done("Accepted {}."),
        RefuseRequest: _done("Refused {}. They are not told."),
        CancelRequest: _done("The request to {} is cancelled."),
        BlockContact: _done("{} is blocked."),
        UnblockContact: _done("{} may ask to connect again; you ask with mimi-mmr contact add CODE."),
        OnlyContacts: shown_by(_show_only_contacts),
    },
)
