"""How a command fails: the error and what to do about it on stderr, and an exit status."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager

import typer

from mimi_mmr.app.agent.connection import Refused
from mimi_mmr.app.cli import terminal
from mimi_mmr.app.commands.errors import HINTS
from mimi_mmr.errors import MmrError

FAILED, USAGE, UNKNOWN, STATE, NETWORK, NOTHING_YET, INTERRUPTED = 1, 2, 3, 4, 5, 6, 130
EXITS = {
    "config": USAGE,
    "invalid-uri": USAGE,
    "bad-request": USAGE,
    "not-found": UNKNOWN,
    "ambiguous": UNKNOWN,
    "state": STATE,
    "agent": STATE,
    "agent-running": STATE,
    "agent-not-running": STATE,
    "no-account": STATE,
    "peer": NETWORK,
    "private-path": NETWORK,
    "queue-full": NETWORK,
    "no-key-packages": NETWORK,
    "nothing-yet": NOTHING_YET,
}


@contextmanager
def failing(as_json: bool = False) -> Iterator[None]:
    """Report an `MmrError` on stderr, as JSON or for people, and end with its exit status."""
    try:
        yield
    except MmrError as error:
        code = error.answered if isinstance(error, Refused) else error.code
        hint = error.hint if isinstance(error, Refused) else HINTS.get(code, "")
        if as_json:
            failure = {"error": {"code": code, "message": str(error), "hint": hint}}
            typer.echo(json.dumps(failure), err=True)
        else:
            terminal.note(f"mimi-mmr: {error}")
            if hint:
                terminal.note(f"hint: {hint}")
        raise typer.Exit(EXITS.get(code, FAILED)) from None
    except KeyboardInterrupt:
        raise typer.Exit(INTERRUPTED) from None
