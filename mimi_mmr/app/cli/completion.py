"""Names that a shell completes, taken from a running agent within a short time, or not at all."""

from __future__ import annotations

import re
from collections.abc import Callable

import typer

from mimi_mmr.app.agent.connection import Connection
from mimi_mmr.app.agent.home import Home
from mimi_mmr.app.commands.model import Command
from mimi_mmr.errors import MmrError

PATIENCE = 1.0  # seconds
# A shell puts a completion into the command line as it is, and others choose the names of rooms. So a name that a
# shell could take for a command, several words, a pattern or an option is not offered; the room's id is.
_PLAIN = re.compile(r"\w[\w@+:,./-]*")

Complete = Callable[[typer.Context, str], list[str]]


def names_from_agent(source: type[Command]) -> Complete:
    """Return a function that completes with the names which a command lists."""

    def complete(context: typer.Context, incomplete: str) -> list[str]:
        try:
            with Connection(Home.find(context.params.get("home")), timeout=PATIENCE) as connection:
                found = connection.ask(source.about.name)
        except MmrError:
            return []  # a shell shows no errors while it completes
        return [name for name in found if name.startswith(incomplete) and _PLAIN.fullmatch(name)]

    return complete
