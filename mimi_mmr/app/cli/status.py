"""`mimi-mmr status`: how things stand."""

from __future__ import annotations

from typing import Any

import typer

from mimi_mmr.app.cli import terminal
from mimi_mmr.app.cli.caller import Caller, command

app = typer.Typer()


@command(app)
def status(caller: Caller) -> None:
    """How things stand: unread messages, requests, what happened meanwhile, what does not work."""
    with caller.link() as link:  # whose notices are part of the result
        found = link.ask("status")
    caller.show(found, _show)


def _show(found: dict[str, Any]) -> None:
    terminal.show_fields(
        [
            ("user", terminal.person(found["account"]["user"])),
            ("contacts", found["contacts"]),
            ("requests", f"{found['requests_in']} to answer, {found['requests_out']} without an answer"),
            ("rooms", found["rooms"]),
            ("unread", found["unread"]),
            ("agent", f"process {found['pid']}"),
        ]
    )
    for notice in found["notices"]:
        terminal.say(f"{terminal.when(notice['when'])}  {terminal.with_addresses(notice['text'])}")
    for what, why in found["trouble"].items():
        terminal.say(f"does not work at the moment: {what}: {why}")
