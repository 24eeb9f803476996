"""`mimi-mmr asset`: files for a room, and from it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from mimi_mmr.app.cli import terminal
from mimi_mmr.app.cli.caller import Caller, command
from mimi_mmr.app.cli.room import RoomArgument

app = typer.Typer(no_args_is_help=True, help="Files for a room, and from it.")


@command(app)
def put(
    caller: Caller,
    room: RoomArgument,
    file: Annotated[Path, typer.Argument(exists=True, dir_okay=False, help="The file, of at most 64 MiB.")],
) -> None:
    """Send a file to a room, encrypted."""
    found = caller.ask("asset.put", room=room, file=str(file.absolute()))
    caller.show(found, lambda view: terminal.say(f"Sent {view['name']}, {view['size']} bytes."))


@command(app)
def get(
    caller: Caller,
    room: RoomArgument,
    number: Annotated[int, typer.Argument(metavar="N", help="The file's number, as `room read` shows it.")],
    out: Annotated[
        Path | None,
        typer.Option("--out", help="File or directory to write to. Default: here, as its sender named it."),
    ] = None,
) -> None:
    """Fetch a file from a room. Nothing is overwritten."""
    found = caller.ask("asset.get", room=room, number=number, out=str((out or Path()).absolute()))
    caller.show(found, lambda view: terminal.say(view["file"]))
