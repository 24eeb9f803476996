"""`mimi-mmr status` on the terminal."""

from __future__ import annotations

import sys

from mimi_mmr.app.cli import terminal
from mimi_mmr.app.cli.from_models import Front, command_line
from mimi_mmr.app.cli.invocation import Invocation
from mimi_mmr.app.commands.status import ShownNotices, ShowStatus, StatusResult


def _status(invocation: Invocation, command: ShowStatus) -> None:
    with invocation.connect() as connection:  # not `ask`: here the notices are part of the result
        found = connection.ask(command.about.name)
    invocation.show(command, found, _show_status)
    sys.stdout.flush()
    if found["notices"]:
        invocation.confirm(ShownNotices(number=max(notice["number"] for notice in found["notices"])))


def _show_status(found: StatusResult) -> None:
    terminal.show_fields(
        [
            ("user", terminal.person(found.account.user)),
            ("contacts", found.contacts),
            ("requests", f"{found.requests_in} to answer, {found.requests_out} without an answer"),
            ("rooms", found.rooms),
            ("unread", found.unread),
            ("agent", f"process {found.pid}"),
        ]
    )
    if found.clock:
        terminal.say(f"clocks: {found.clock}")
    for notice in found.notices:
        terminal.say(f"{terminal.when(notice.when)}  {terminal.with_addresses(notice.text)}")
    for what, why in found.trouble.items():
        terminal.say(f"does not work at the moment: {what}: {why}")


app = command_line("status", {ShowStatus: Front(_status)})
