"""Options that all commands have. This module imports little, since `mimi-mmr --help` needs it."""

from __future__ import annotations

from typing import Annotated

import typer

PANEL = "Common options"

JsonOption = Annotated[
    bool,
    typer.Option(
        "--json", help="One JSON document on stdout, for programs; errors, too.", rich_help_panel=PANEL
    ),
]
