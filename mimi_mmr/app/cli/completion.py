"""Names for a shell to complete: from an agent that is running, and quickly, or not at all."""

from __future__ import annotations

import typer

from mimi_mmr.app.agent.home import Home
from mimi_mmr.app.agent.link import Link
from mimi_mmr.errors import MmrError

PATIENCE = 1.0


def rooms(context: typer.Context, incomplete: str) -> list[str]:
    """Rooms' names and ids."""
    return _names("complete.rooms", context, incomplete)


def users(context: typer.Context, incomplete: str) -> list[str]:
    """Contacts, and people who ask or were asked."""
    return _names("complete.users", context, incomplete)


def _names(do: str, context: typer.Context, incomplete: str) -> list[str]:
    try:
        with Link(Home.find(context.params.get("home")), timeout=PATIENCE) as link:
            found = link.ask(do)
    except MmrError:
        return []  # a shell that completes nothing says it all
    # What a shell would take for more than a word, or a terminal for a command, is not offered.
    return [name for name in found if name.startswith(incomplete) and name.isprintable()]
