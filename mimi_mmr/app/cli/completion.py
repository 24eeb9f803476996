"""Names that a shell completes, taken from a running agent within a short time, or not at all."""

from __future__ import annotations

from collections.abc import Callable

import typer

from mimi_mmr.app.agent.connection import Connection
from mimi_mmr.app.agent.home import Home
from mimi_mmr.app.commands.model import Command
from mimi_mmr.errors import MmrError

PATIENCE = 1.0  # seconds

Complete = Callable[[typer.Context, str], list[str]]


def names_from_agent(source: type[Command]) -> Complete:
    """Return a function that completes with the names which a command lists."""

    def complete(context: typer.Context, incomplete: str) -> list[str]:
        try:
            with Connection(Home.find(context.params.get("home")), timeout=PATIENCE) as connection:
                found = connection.ask(source.about.name)
        except MmrError:
            return []  # a shell shows no errors while it completes
        # Leave out names that a shell would split into words, or a terminal would take for a control sequence.
        return [name for name in found if name.startswith(incomplete) and name.isprintable()]

    return complete
