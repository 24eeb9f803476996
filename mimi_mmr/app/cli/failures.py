"""How a command fails: the error and what to do about it on stderr, and an exit status."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NoReturn

import typer

from mimi_mmr.app.agent.connection import Refused
from mimi_mmr.app.cli import terminal
from mimi_mmr.app.commands.errors import SystemFailed
from mimi_mmr.app.commands.hints import hint_for
from mimi_mmr.errors import MmrError

FAILED, USAGE, UNKNOWN, STATE, NETWORK, NOTHING_YET, INTERRUPTED = 1, 2, 3, 4, 5, 6, 130
USAGE_ERROR, ABORTED = "usage", "aborted"
EXITS = {
    USAGE_ERROR: USAGE,
    "config": USAGE,
    "trust": USAGE,
    "file": USAGE,
    "invalid-uri": USAGE,
    "bad-request": USAGE,
    "not-found": UNKNOWN,
    "ambiguous": UNKNOWN,
    "unknown-device": UNKNOWN,
    "state": STATE,
    "agent": STATE,
    "agent-running": STATE,
    "agent-not-running": STATE,
    "no-account": STATE,
    "unfinished": STATE,
    "shut-out": STATE,
    "peer": NETWORK,
    "not-begun": NETWORK,
    "private-path": NETWORK,
    "queue-full": NETWORK,
    "no-key-packages": NETWORK,
    "nothing-yet": NOTHING_YET,
}


@contextmanager
def failing(command: str, as_json: bool = False) -> Iterator[None]:
    """Report an error of this command on stderr, as JSON or for people, and end with its exit status.

    `command` is its words, as in "room send". Defects of the program are not caught.
    """
    try:
        yield
    except MmrError as error:
        code = error.answered if isinstance(error, Refused) else error.code
        report(command, code, str(error), as_json, hint=error.hint)
    except BrokenPipeError:
        raise
    except OSError as error:
        report(command, SystemFailed.code, str(SystemFailed.of(error)), as_json)
    except KeyboardInterrupt:
        raise typer.Exit(INTERRUPTED) from None


def report(
    command: str, code: str, message: str, as_json: bool, status: int | None = None, hint: str = ""
) -> NoReturn:
    """Report an error of this code, and end with its exit status, or with the given one.

    `hint` is the error's own one; without it, that of its code is shown.
    """
    hint = hint or hint_for(code, command)
    if as_json:
        typer.echo(json.dumps({"error": {"code": code, "message": message, "hint": hint}}), err=True)
    else:
        for line in message.splitlines() or [""]:
            terminal.note(f"mimi-mmr: {line}")
        if hint:
            terminal.note(f"hint: {hint}")
    raise typer.Exit(EXITS.get(code, FAILED) if status is None else status) from None
