"""`mimi-mmr local`: two providers on this machine, to try it all out."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from shlex import quote
from typing import Annotated

import typer

from mimi_mmr.app.cli import terminal
from mimi_mmr.app.cli.failures import failing
from mimi_mmr.app.cli.options import JsonOption

app = typer.Typer()


@app.command()
def local(
    directory: Annotated[Path, typer.Argument(metavar="DIRECTORY", help="Where they go. It must not exist.")],
    port: Annotated[
        int,
        typer.Option(min=1024, max=65533, help="The first of three ports in a row."),
    ] = 8461,
    as_json: JsonOption = False,
) -> None:
    """Set up two providers on this machine, with CAs, certificates and settings, to try it all out."""
    from mimi_mmr.app.cli.local_providers import set_up  # slow to import

    with failing("local", as_json):
        made = set_up(directory, port)
    if as_json:
        terminal.show_json(
            {"providers": [asdict(provider) | {"config": str(provider.config)} for provider in made]}
        )
        return
    for provider in made:
        terminal.say(f"mimi-mmr serve --config {quote(str(provider.config))}")
