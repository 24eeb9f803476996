"""`mimi-mmr asset` on the terminal: this process reads and writes the files."""

from __future__ import annotations

import sys
from pathlib import Path

import typer

from mimi_mmr.app.cli import files, terminal
from mimi_mmr.app.cli.from_models import Front, command_line
from mimi_mmr.app.cli.invocation import Invocation
from mimi_mmr.app.commands.asset import (
    MAX_ASSET,
    FetchedFileResult,
    FileToFetch,
    GetAsset,
    PutAsset,
    SentFileResult,
)
from mimi_mmr.app.commands.model import STDOUT
from mimi_mmr.app.commands.result import read


def _put(invocation: Invocation, command: PutAsset) -> None:
    content = files.read(command.file, MAX_ASSET, "FILE")
    invocation.show(command, invocation.ask(command, content=content), _show_sent)


def _show_sent(sent: SentFileResult) -> None:
    terminal.say(f"Sent {sent.name}, {sent.size} bytes.")


def _get(invocation: Invocation, command: GetAsset) -> None:
    if command.out == STDOUT:
        _write_out(invocation, command)
        return
    target: Path | None = None
    for kind, value in invocation.stream(command):
        if kind == "item":
            target = files.target(command.out, read(FileToFetch, value).name)
        elif kind == "file" and target is not None:
            files.write(target, value)
        elif kind == "result":
            invocation.show(command, value | {"file": str(target)}, _show_fetched)


def _write_out(invocation: Invocation, command: GetAsset) -> None:
    """Write the file to standard output, as it is."""
    if invocation.json:
        raise typer.BadParameter("--json writes there, too", param_hint="--out")
    for kind, value in invocation.stream(command):
        if kind == "file":
            sys.stdout.buffer.write(value)
            sys.stdout.flush()


def _show_fetched(fetched: FetchedFileResult) -> None:
    terminal.say(fetched.file)


app = command_line("asset", {PutAsset: Front(_put), GetAsset: Front(_get)})
