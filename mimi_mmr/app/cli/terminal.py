"""What people see: safe text; tables on a terminal, plain lines elsewhere."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Sequence
from datetime import UTC, datetime

import typer

from mimi_mmr.app.cli.safe_text import safe

LAST_DAY = 253_402_214_400  # 9999-12-31
_USER = re.compile(r"mimi://([a-z0-9.-]+)/u/([a-z0-9](?:[a-z0-9._~-]*[a-z0-9])?)")


def one_line(text: str) -> str:
    """Return safe text without line breaks."""
    return safe(text).replace("\n", " ")


def say(text: str) -> None:
    """Write one line for people to stdout, whatever names and texts are in it."""
    typer.echo(one_line(text))


def note(text: str) -> None:
    """Write one line beside the result to stderr."""
    typer.echo(one_line(with_addresses(text)), err=True)


def show_json(value: object, *, indent: int | None = None) -> None:
    """Write one JSON document to stdout, in ASCII: it holds no control sequence."""
    typer.echo(json.dumps(value, indent=indent))


def show_table(columns: Sequence[str], rows: Sequence[Sequence[object]], *, empty: str) -> None:
    """Write a table to a terminal; elsewhere write lines with tabs between the values, and no heading."""
    cells = [[one_line(str(value)) for value in row] for row in rows]
    if not sys.stdout.isatty():
        for row in cells:
            typer.echo("\t".join(row))
    elif not cells:
        typer.echo(empty)
    else:
        from rich.console import Console  # slow to import
        from rich.table import Table
        from rich.text import Text

        table = Table(box=None, pad_edge=False, header_style="bold")
        for column in columns:
            table.add_column(column, overflow="fold")
        for row in cells:
            table.add_row(*map(Text, row))
        Console().print(table)


def show_fields(fields: Sequence[tuple[str, object]]) -> None:
    """Write names and values, one a line."""
    width = max(len(name) for name, _ in fields) + 2
    for name, value in fields:
        typer.echo(f"{name + ':':<{width}}{one_line(str(value))}")


def when(seconds: int) -> str:
    """Return a time (seconds since 1970) in this machine's time zone; one beyond the year 9999 as its last day."""
    return datetime.fromtimestamp(min(seconds, LAST_DAY), UTC).astimezone().strftime("%Y-%m-%d %H:%M")


def person(uri: str | None) -> str:
    """Return `bob@b.example` for a user's URI."""
    if uri is None:
        return "?"
    domain, _, name = uri.removeprefix("mimi://").partition("/u/")
    return f"{name}@{domain}"


def with_addresses(text: str) -> str:
    """Return a sentence with its users' URIs as people write them."""
    return _USER.sub(r"\2@\1", text)
